"""Functions stay small enough to be read at once."""

import ast

import pytest

from tests.helpers import ROOT

LINES, PARAMETERS = 60, 6
SOURCES = sorted((ROOT / "fedjax_mrl").rglob("*.py"))
# Their docstrings say why, or they are constructors with named hyper-parameters.
MANY = {"data/own.py:arrays", "algorithms/fedgen.py:fedgen", "models/cnn.py:cnn"}


def functions(path):
    name = path.relative_to(ROOT / "fedjax_mrl").as_posix()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{name}:{node.name}", node


def test_functions_fit_a_screen():
    """Constructors of methods, which hold their client's functions, may be longer."""
    long = [
        name
        for path in SOURCES
        if path.parent.name != "algorithms"
        for name, node in functions(path)
        if node.end_lineno - node.lineno + 1 > LINES
    ]
    assert long == []


def test_functions_have_few_parameters():
    many = set()
    for path in SOURCES:
        for name, node in functions(path):
            given = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
            given = [arg for arg in given if arg not in ("self", "cls")]
            if len(given) + len(node.args.kwonlyargs) > PARAMETERS:
                many.add(name)
    assert many == MANY


@pytest.mark.parametrize("name", ["algorithms"])
def test_method_files_stay_short(name):
    for path in (ROOT / "fedjax_mrl" / name).glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 130, path.name
