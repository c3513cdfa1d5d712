"""Which module may import what: layers that are kept by reading the source."""

import ast
import functools

import pytest

from tests.helpers import ROOT

PURE = {"protocol", "tree", "rng", "losses"}
ABOVE = "data datasets config cli federation runner checkpoint rundir comparison"
# The one method that is another one with a different server.
BASES = {("fedtgp", "fedproto")}
# Package to the only modules that may import it, wherever in the file.
ONLY = {
    "tensorflow_datasets": ("data/prepared",),
    "orbax": ("checkpoint",),
    "argparse": ("cli/",),
    "pickle": ("data/official",),
}


@functools.cache
def modules():
    """Name, as data/dataset, to the parsed source."""
    package = ROOT / "fedjax_mrl"
    return {
        str(path.relative_to(package).with_suffix("")): ast.parse(path.read_text())
        for path in sorted(package.rglob("*.py"))
    }


def imports(source):
    """Full names of all that is imported, also inside of functions."""
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(name):
    """A module of this package without the package's name, else None."""
    return name.partition("fedjax_mrl.")[2] if name.startswith("fedjax_mrl.") else None


@pytest.mark.parametrize("name", sorted(PURE))
def test_the_lowest_modules_import_arrays_and_each_other_only(name):
    allowed = {"jax", "numpy", "optax", "typing", "collections", "enum", "zlib"}
    for found in imports(modules()[name]):
        part = own(found)
        assert (part or found).split(".")[0] in (PURE if part else allowed), found


def test_algorithms_import_nothing_above_them_and_no_other_algorithm():
    files = [name for name in modules() if name.startswith("algorithms/")]
    assert len(files) > 10
    bases = set()
    for name in files:
        for part in filter(None, map(own, imports(modules()[name]))):
            assert part.split(".")[0] not in ABOVE.split(), (name, part)
            if part.startswith("algorithms."):
                bases.add((name.removeprefix("algorithms/"), part.split(".")[1]))
    assert bases <= BASES


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
