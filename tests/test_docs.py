"""The documents and docstrings are true: what they show runs, what they name exists."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys

import pytest

import fedjax_mrl
from experiments import methods_table
from fedjax_mrl import algorithms, config, discovery, references
from fedjax_mrl.cli import main as cli
from fedjax_mrl.cli import options
from tests import documents
from tests.helpers import ROOT, Toy

LANGUAGES = {"python", "sh", "sh run", "text"}
MODULES = sorted(
    info.name for info in pkgutil.walk_packages(fedjax_mrl.__path__, "fedjax_mrl.")
)


# Pages and modules whose examples train: with the slow tests, but for what newcomers
# meet first.
FIRST = ("README.md", "docs/quickstart.md")
TRAINING = ("comparing", "compared", "federation", "loading", "runs.writers", "trained")


def slow_if(slow, names):
    """Parameters for a test of each name, with those marked that take long."""
    return [
        pytest.param(name, marks=pytest.mark.slow) if slow(name) else name
        for name in names
    ]


def named(block):
    return f"{block.document}:{block.line}"


def of(*languages):
    found = [b for b in documents.blocks() if b.language in languages]
    assert found
    return found


def check_command(words):
    """Fails unless the command exists and takes these words."""
    program, *rest = words
    if program == "fedjax-mrl":
        args = cli.parse(rest)
        if hasattr(args, "preset"):
            resolved = options.resolve(args)
            names = getattr(args, "algorithms", resolved.algorithm)
            for name in names.split(","):
                known = [*algorithms.names(), "fedbias", "slow_fedavg"]
                assert references.short(name) in known, name
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{rest[0]}:", makefile, re.MULTILINE), words
    elif program.endswith(("python", "python3")):
        check_module(rest[1], rest[2:])
    else:
        assert program in ("git", "cd", "for", "done", "wait"), words


def check_module(name, words):
    """Fails unless `python -m name` exists and takes these words."""
    assert importlib.util.find_spec(name), name
    if name.startswith("experiments.") and words:
        importlib.import_module(name).arguments(words)
    elif name == "pip":
        assert re.fullmatch(r"\.(\[\w+(,\w+)*\])?", words[-1]), words
    elif name == "pytest":
        paths = [word for word in words if word.startswith("tests")]
        assert paths and all((ROOT / path).exists() for path in paths), words


def test_every_code_block_is_fenced_and_says_its_language():
    for block in documents.blocks():
        assert block.language in LANGUAGES, named(block)
    for path in documents.documents():
        text = path.read_text(encoding="utf-8")
        prose = re.sub(r"^```.*\n(?:.*\n)*?```$", "", text, flags=re.MULTILINE)
        indented = re.search(r"(?:\A|\n)\n {4}\S.*", prose)
        assert not indented, (path.name, indented and indented[0])


@pytest.mark.parametrize(
    "document",
    slow_if(
        lambda name: name not in FIRST,
        sorted({block.document for block in of("python")}),
    ),
)
def test_python_blocks_run(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "documented"}
    monkeypatch.setitem(sys.modules, "documented", type(sys)("documented"))
    for block in of("python"):
        if block.document == document:
            code = "\n" * block.line + block.text  # errors name the page's line
            exec(compile(code, document, "exec"), names)


@pytest.mark.parametrize("block", of("sh", "sh run"), ids=named)
def test_command_lines_are_valid(block):
    syntax = subprocess.run(
        ["sh", "-n"], input=block.text, text=True, capture_output=True
    )
    assert syntax.returncode == 0, syntax.stderr
    for words in documents.commands(block.text):
        check_command(words)


def test_command_lines_of_docstrings_are_valid():
    found = list(documents.docstring_commands())
    assert len(found) > 5
    for text in found:
        for words in documents.commands(text):
            check_command(words)


@pytest.mark.parametrize(
    "block", slow_if(lambda block: block.document not in FIRST, of("sh run")), ids=named
)
def test_short_command_lines_run(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for program, *words in documents.commands(block.text):
        assert program == "fedjax-mrl"
        assert cli.main(words) == 0, (words, capsys.readouterr().err)
        assert capsys.readouterr().out, words


@pytest.mark.parametrize(
    "name",
    slow_if(
        lambda name: name.removeprefix("fedjax_mrl.") in TRAINING,
        ["fedjax_mrl", *MODULES],
    ),
)
def test_examples_of_docstrings_run(name, tmp_path, monkeypatch):
    if name.endswith("__main__"):
        return  # importing it runs the command line
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert not failed


def test_no_example_is_skipped():
    for path in [*(ROOT / "fedjax_mrl").rglob("*.py"), *documents.documents()]:
        assert "+SKIP" not in path.read_text(encoding="utf-8"), path.name


def test_the_table_of_methods_is_what_the_code_generates():
    written = methods_table.TARGET.read_text(encoding="utf-8")
    assert written == methods_table.generate()


@pytest.mark.parametrize("name", algorithms.names())
def test_every_algorithm_cites_its_paper_and_the_readme_names_it(name):
    title, reference = methods_table.documentation(name)
    assert title
    if name != "standalone":
        assert re.search(r"(19|20)\d\d\. https://", reference), reference
    assert f"`{name}`" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_preset_is_a_valid_configuration():
    assert "demo" in config.presets()
    for name in config.presets():
        config.build(config.read_preset(name))


def test_documents_name_only_files_that_exist():
    for document in documents.documents():
        text = document.read_text(encoding="utf-8")
        pattern = r"[`(]((?:docs|experiments|tests|fedjax_mrl)/[\w/.-]+\.\w+)[`)]"
        for found in re.findall(pattern, text):
            assert (ROOT / found).exists(), (document.name, found)


@pytest.mark.slow
def test_the_tutorials_algorithm_runs(tmp_path, monkeypatch):
    (code,) = [
        block.text
        for block in of("python")
        if block.document == "docs/adding_an_algorithm.md"
    ]
    (tmp_path / "fedbias.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(algorithms, "__path__", [*algorithms.__path__, str(tmp_path)])
    discovery.find.cache_clear()
    try:
        assert "fedbias" in algorithms.names()
        toy = Toy("fedbias")
        state = toy.after(2)
        assert float(abs(state.server).max()) > 0
        scores = toy.evaluate()(state)
        assert scores.accuracy.shape == (2, 1, 8)
    finally:
        discovery.find.cache_clear()
        sys.modules.pop("fedjax_mrl.algorithms.fedbias", None)
