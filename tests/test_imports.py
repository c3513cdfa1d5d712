"""Module imports, held against the table of docs/design.md by reading the source."""

import ast
import fnmatch
import functools
import re
import sys
from typing import NamedTuple

import pytest

from tests.helpers import ROOT

# Package to the only modules that may import it, wherever in the file.
ONLY = {
    "tensorflow_datasets": ("data/tfds_package",),
    "orbax": ("runs/checkpoint",),
    "argparse": ("cli/",),
    "pickle": ("data/official",),
}
# Methods that are another one with a different server, or without a part.
BASES = {
    ("algorithms/fedtgp", "algorithms/fedproto"),
    ("algorithms/fedmrl", "algorithms/fedmrl_ablations"),
    ("algorithms/fedmrl_frozen_projector", "algorithms/fedmrl"),
    ("algorithms/fedmrl_last_client", "algorithms/fedmrl"),
    ("algorithms/fedmrl_no_mrl", "algorithms/fedmrl"),
    ("algorithms/fedmrl_no_mrl_full", "algorithms/fedmrl"),
}


class Layer(NamedTuple):
    """One row of the table, a room."""

    name: str
    modules: list[str]  # patterns
    below: list[str]  # names of other layers that it may import
    packages: list[str]


@functools.cache
def layers():
    """The rows of the table in docs/design.md, by name."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    section = text.partition("## Rooms")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    ][2:]
    words = lambda cell: re.findall(r"[\w/*]+", cell)
    return {row[0]: Layer(row[0], *map(words, row[1:])) for row in rows}


def layer_of(module):
    """The one layer whose row names the module."""
    found = [
        layer
        for layer in layers().values()
        if any(fnmatch.fnmatchcase(module, pattern) for pattern in layer.modules)
    ]
    assert len(found) == 1, (module, "must be in one row of the table in design.md")
    return found[0]


@functools.cache
def modules():
    """Name, as data/dataset, to the parsed source; a package has its folder's name."""
    package = ROOT / "fedjax_mrl"
    found = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).with_suffix("").as_posix()
        name = name.removesuffix("/__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def run(source):
    """All nodes that are run: not what stands below `if TYPE_CHECKING`."""
    waiting = [source]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def imports(source):
    """Full names of all that is imported, also inside of functions.

    Not for annotations alone: these say what a value is, wherever it comes from.
    """
    for node in run(source):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(name):
    """The module of this package that a full name is or lies in, else None."""
    first, *rest = name.split(".")
    if first != "fedjax_mrl":
        return None
    while rest and "/".join(rest) not in modules():
        rest.pop()
    return "/".join(rest) or "__init__"


def imported(module):
    """The modules of this package that one of them imports."""
    return set(filter(None, map(own, imports(modules()[module])))) - {module}


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_what_the_table_allows(module):
    layer = layer_of(module)
    for other in imported(module):
        below = layer_of(other).name
        assert below in (layer.name, *layer.below), (module, other)
    for name in imports(modules()[module]):
        package = name.split(".")[0]
        if package != "fedjax_mrl" and package not in sys.stdlib_module_names:
            assert package in layer.packages, (module, package)


def test_the_table_names_only_what_exists():
    for layer in layers().values():
        for pattern in layer.modules:
            assert fnmatch.filter(modules(), pattern), pattern
        assert set(layer.below) <= set(layers()), layer.name


def test_no_module_imports_itself_by_way_of_others():
    # The package's own __init__ offers the public names; a package's modules may
    # import the package they lie in.
    waiting = {
        module: {
            other
            for other in imported(module)
            if not module.startswith(f"{other}/") and other != "__init__"
        }
        for module in modules()
    }
    while waiting:
        free = [
            module for module, others in waiting.items() if not others & set(waiting)
        ]
        assert free, f"a circle among {sorted(waiting)}"
        for module in free:
            del waiting[module]


def test_methods_import_no_other_method_but_an_explicit_base():
    files = [name for name in modules() if name.startswith("algorithms/")]
    assert len(files) > 10
    bases = {(name, part) for name in files for part in imported(name) if part in files}
    assert bases == BASES


@pytest.mark.parametrize("package", ONLY)
def test_a_package_is_imported_in_its_place_only(package):
    users = {
        name
        for name, source in modules().items()
        if any(found.split(".")[0] == package for found in imports(source))
    }
    assert users and all(name.startswith(ONLY[package]) for name in users)


def test_nothing_but_the_command_line_prints():
    for name, source in modules().items():
        called = {
            node.func.id
            for node in ast.walk(source)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "print" not in called or name.startswith("cli/"), name


def floors():
    """Names of rooms by floor, the ground first, from the table."""
    height = {}

    def of(name):
        if name not in height:
            height[name] = 1 + max(map(of, layers()[name].below), default=-1)
        return height[name]

    for name in layers():
        of(name)
    return [
        [name for name in layers() if height[name] == floor]
        for floor in range(max(height.values()) + 1)
    ]


def picture():
    """The floors as design.md draws them, the top first."""
    rows = list(enumerate(floors()))[::-1]
    return "\n".join(f"{floor:2}  {'   '.join(names)}" for floor, names in rows)


def test_the_picture_of_the_floors_is_the_tables():
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert f"```text\n{picture()}\n```" in text


def test_every_word_of_the_glossary_is_used():
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    table = text.partition("## Words")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    words = [word.strip() for row in rows[2:] for word in row.split(",")]
    sources = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "fedjax_mrl").rglob("*.py")
    )
    assert len(words) > 20
    for word in words:
        assert re.search(rf"\b{re.escape(word)}", sources, re.IGNORECASE), word
