"""What is said where the accountant's package is not installed."""

import pytest

import fedjax_mrl as fm
from fedjax_mrl.cli import main
from fedjax_mrl.privacy import extra

OPTIONS = {"algorithm": "fedavg", "models": ("mlp",), "shared_model": "mlp"}
DP = "clip=1,noise=1,delta=1e-3"


@pytest.fixture(autouse=True)
def missing(monkeypatch):
    monkeypatch.setattr(extra, "PACKAGE", "no_such_accountant")


def test_a_sentence_says_what_to_install():
    said = "--dp needs dp-accounting, .*: python -m pip install dp-accounting$"
    with pytest.raises(ValueError, match=said):
        fm.Federation(dp=DP, **OPTIONS)
    assert fm.Federation(**OPTIONS).privacy is None


def test_the_command_line_ends_with_status_2(capsys):
    for words in (["run", "--dp", DP], ["plan", "--dp", "clip=1,epsilon=8,delta=1e-3"]):
        flags = ["--algorithm", "fedavg", "--models", "mlp", "--shared-model", "mlp"]
        assert main.main([*words, *flags]) == 2
        assert "pip install dp-accounting" in capsys.readouterr().err


def test_an_unknown_sampling_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"no sampling 'poison'"):
        fm.Federation(sampling="poison", **OPTIONS)
