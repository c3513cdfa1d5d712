"""Values of a grid that cannot be run are refused before anything trains."""

import numpy as np
import pytest

import fedjax_mrl as fm
from fedjax_mrl.cli.main import main

MLP = ["--models", "mlp", "--shared-model", "mlp", "--num-clients", "5"]
FLAGS = [*MLP, "--feature-dim", "8", "--rounds", "1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--grid", "algorithm.alpha=0.5,7"], "fml: alpha must be in [0, 1]"),
        (["--grid", "algorithm.alpha=7"], "got 7.0"),
        (["--set", "fml.alpha=7"], "fml: alpha must be in [0, 1]"),
        (
            ["--grid", "shared_dim=4,9"],
            "shared_dim must be at most 8, the width of mlp; got 9",
        ),
        (["--grid", "learning_rate_decay=none,twice"], "got 'twice'"),
        (["--grid", "precision=highest,best"], "no precision 'best'"),
        (["--grid", "lowering=auto,fast"], "'fast'"),
        (["--grid", "held_out_clients=1,5"], "at least one of the 5 clients"),
        (["--grid", "participation=1,0.01"], "selects nobody"),
        (["--grid", "test_fraction=0.1,0.2"], "tested on the same examples"),
        (["--seeds", ""], "--seeds takes numbers; got ''"),
        (["--target", "nan"], "an accuracy above 0 and at most 1, as 0.5 for 50 %; go"),
        (["--target", ""], "--target takes numbers; got ''"),
    ],
)
def test_one_sentence_names_the_value_and_nothing_is_written(
    tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    ask = ["compare", "--algorithms", "fml,fedmrl,standalone", *FLAGS, *words]
    if "shared_dim" not in words[1]:
        ask += ["--shared-dim", "4"]
    assert main(ask) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_lone_value_is_refused_where_the_default_would_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ask = ["compare", "--algorithms", "fedmrl,standalone", *MLP, "--rounds", "1"]
    assert main([*ask, "--grid", "algorithm.shared_dim=9999"]) == 2
    assert main([*ask, "--shared-dim", "9999"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_same_in_python():
    options = {"models": ("mlp",), "shared_model": "mlp", "num_clients": 5}
    with pytest.raises(ValueError, match=r"fml: alpha must be in \[0, 1\].*got 7"):
        fm.compare(["fml"], grid={"algorithm.alpha": (0.5, 7)}, rounds=1, **options)


def test_data_seeds_do_not_draw_several_test_parts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    y = np.arange(90) % 3
    np.savez("own.npz", x=np.random.default_rng(0).normal(size=(90, 4)), y=y)
    ask = ["compare", "--algorithms", "fd", *FLAGS[:6], "--dataset", "own.npz"]
    assert main([*ask, "--partition", "iid", "--grid", "data_seed=0,1"]) == 2
    assert "cannot sweep data_seed where it also draws" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
