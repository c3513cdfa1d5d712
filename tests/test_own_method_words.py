"""What is said of a user's own method that is named or made wrongly."""

import pytest

from fedjax_mrl.cli.main import main
from tests import documents

FLAGS = "--models mlp --shared-model mlp --num-clients 5 --rounds 1 --feature-dim 8"
FLAGS = [*FLAGS.split(), "--limit-train", "100", "--partition", "iid"]


@pytest.fixture
def source(tmp_path, monkeypatch):
    """The method of docs/adding_an_algorithm.md, as fedbias.py in this folder."""
    monkeypatch.chdir(tmp_path)
    (text,) = (
        block.text
        for block in documents.blocks()
        if block.document == "docs/adding_an_algorithm.md"
        if block.language == "python"
    )
    (tmp_path / "fedbias.py").write_text(text)
    return text


def compare(name, capsys, status=2):
    words = ["compare", "--algorithms", name, *FLAGS, "--out", "both"]
    assert main(words) == status
    return capsys.readouterr().err


def test_an_upload_of_another_shape_is_refused_before_anything_is_written(
    source, tmp_path, capsys
):
    wrong = source.replace("upload=networks.bias,", "upload=networks.bias[:5],")
    (tmp_path / "fedbias.py").write_text(wrong)
    told = compare("fedbias.py:fedbias,standalone", capsys)
    assert "but it is float32 [5] instead of float32 [10]" in told
    assert "look first at `upload`" in told and told.count("\n") == 1
    assert not (tmp_path / "both").exists()


def test_a_name_without_its_file_is_answered_with_both(source, tmp_path, capsys):
    told = compare("fedbias", capsys)
    assert "file fedbias.py is named fedbias.py:fedbias." in told
    (tmp_path / "fedbias.py").unlink()
    assert "fedbias.py" not in compare("fedbias", capsys)


@pytest.mark.parametrize("listed", [True, False])
def test_only_methods_of_a_file_are_offered(source, tmp_path, capsys, listed):
    if not listed:
        source = source.replace('__all__ = ["fedbias"]', "")
    (tmp_path / "fedbias.py").write_text(source)
    told = compare("fedbias.py:fedbais", capsys)
    assert told.endswith("Did you mean 'fedbias'? Valid: fedbias.\n")


KINDS = """
import sys
number = 3
def none(): pass
def divides(first, second=0): return 1 / 0
def leaves(first, second=0): sys.exit(0)
"""


@pytest.mark.parametrize("flag", ["--models", "--algorithm"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none", "and failed: TypeError: none() takes 0 positional arguments"),
        ("divides", "mine.py: ZeroDivisionError: division by zero"),
        ("leaves", "in line 6 of "),
        ("leaves", "mine.py: it ends the process (SystemExit)"),
    ],
)
def test_functions_that_fail_are_told_in_one_line(
    flag, name, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(KINDS)
    argv = ["run", *FLAGS, "--out", "a", flag, f"mine.py:{name}"]
    assert main(argv) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1
    assert not (tmp_path / "a").exists()


def test_a_number_is_no_method(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(KINDS)
    assert "mine.py:number is int" in compare("mine.py:number", capsys)


def test_a_file_that_ends_the_process_is_not_obeyed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("import sys\nsys.exit(0)\n")
    assert main(["run", *FLAGS, "--out", "a", "--models", "mine.py:Net"]) == 2
    assert "imported: it ends the process (SystemExit)" in capsys.readouterr().err
