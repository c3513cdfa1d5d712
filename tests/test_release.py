"""What a release says of itself agrees: versions, bounds, and the forge's files."""

import configparser
import os
import re

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from fedjax_mrl import __version__
from tests.helpers import ROOT


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def requirements(name):
    lines = (line.partition("#")[0].strip() for line in read(name).splitlines())
    found = [Requirement(line) for line in lines if line]
    return {canonicalize_name(one.name): one for one in found}


def exact(name):
    """Package to the one version of a file of constraints."""
    pins = {}
    for package, one in requirements(name).items():
        (specifier,) = one.specifier
        assert specifier.operator == "==", one
        pins[package] = specifier.version
    return pins


def test_the_version_is_the_same_everywhere():
    assert re.search(rf"^## {re.escape(__version__)}\b", read("CHANGELOG.md"), re.M)
    assert yaml.safe_load(read("CITATION.cff"))["version"] == __version__


def test_constraints_name_a_version_of_every_requirement_that_it_allows():
    needed, pins = requirements("requirements.txt"), exact("constraints.txt")
    assert set(needed) <= set(pins)
    for package, one in needed.items():
        assert one.specifier.contains(pins[package]), package


def test_the_lowest_versions_are_those_that_are_declared():
    needed, pins = requirements("requirements.txt"), exact(".ci/lowest.txt")
    for package, one in needed.items():
        (bound,) = one.specifier
        assert bound.operator == ">=", package
        assert Version(pins[package]) == Version(bound.version), package


def test_the_forge_runs_what_everybody_runs():
    workflow = yaml.safe_load(read(".github/workflows/ci.yml"))
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1]["run"] == ".ci/run" and os.access(ROOT / ".ci/run", os.X_OK)
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    declared = re.findall(r":: (3\.\d+)$", setup["metadata"]["classifiers"], re.M)
    assert job["strategy"]["matrix"]["python"] == declared


def test_hooks_are_the_tools_of_make_lint():
    hooks = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", read("Makefile"), re.M)[1]
    for hook in hooks:
        tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert f"$(BIN)/{tool} " in lint, hook
