"""What the documents claim is what the code does."""

import pathlib
import re
import sys

import pytest

from experiments import methods_table
from fedjax_mrl import algorithms, config, discovery
from tests.helpers import ROOT, Toy


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
    for document in [ROOT / "README.md", *pathlib.Path(ROOT / "docs").glob("*.md")]:
        text = document.read_text(encoding="utf-8")
        for found in re.findall(r"`((?:docs|experiments|tests)/[\w/.]+\.\w+)`", text):
            assert (ROOT / found).exists(), (document.name, found)


def test_the_tutorials_algorithm_runs(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "adding_an_algorithm.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
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
