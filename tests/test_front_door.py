"""fit, history, save and compare: the loop, the tables and the pictures of Python."""

import csv

import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import pandas
import pytest

import fedjax_mrl as fm
from fedjax_mrl.cli.main import main
from fedjax_mrl.models import mlp


def tiny(shape, classes):
    return mlp.mlp(shape, classes, feature_dim=8, hidden=6)


SMALL = {
    "algorithm": "fml",
    "models": [tiny],
    "shared_model": tiny,
    "num_clients": 5,
    "batch_size": 64,
}


def accuracies(history):
    return [row["mean_accuracy"] for row in history.rows()]


def test_fit_in_pieces_is_one_fit_and_goes_on_past_the_end():
    whole, parts = fm.Federation(rounds=3, **SMALL), fm.Federation(rounds=3, **SMALL)
    assert len(whole.fit()) == 3 and len(parts.fit(rounds=1)) == 1
    for result in parts.rounds():
        assert result.state.round == 2
        break
    assert parts.fit() is parts.history
    assert accuracies(parts.history) == accuracies(whole.history)
    assert parts.fit() is parts.history and len(parts.history) == 3  # nothing to do
    assert parts.fit(rounds=1).last_round == 4
    assert repr(parts.history).startswith("History of 4 rounds, up to round 4; mean")
    assert "4 of 3 rounds played" in repr(parts)


def test_a_loop_begun_anew_replaces_what_it_plays_again():
    federation = fm.Federation(rounds=2, **SMALL)
    first = accuracies(federation.fit())
    results = list(federation.rounds(federation.init(), until=1))
    assert len(federation.history) == len(results) == 1
    federation.fit()
    assert accuracies(federation.history) == first
    assert [result.state.round for result in federation.history] == [1, 2]


def test_frames_have_the_columns_and_values_of_the_files(tmp_path):
    federation = fm.Federation(rounds=2, eval_every=2, **SMALL)
    history = federation.fit(progress=False)
    federation.save(tmp_path / "a")
    for table in ("rounds", "metrics", "clients"):
        frame = history.frame(table)
        assert isinstance(frame, pandas.DataFrame)
        with (tmp_path / "a" / f"{table}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == frame.columns.tolist()
        assert len(rows) == len(frame)
        for name in ("round", "train_loss", "mean_accuracy", "accuracy"):
            if name in rows[0]:
                written = [float(row[name]) for row in rows]
                np.testing.assert_allclose(written, frame[name], rtol=1e-5)
    assert history.frame()["round"].unique().tolist() == [2]
    with pytest.raises(ValueError, match=r"no table 'round'\. Did you mean 'rounds'"):
        history.frame("round")


def test_a_saved_federation_is_a_run_that_goes_on_anywhere(tmp_path, capsys):
    whole = fm.Federation(rounds=3, **SMALL)
    whole.fit()
    federation = fm.Federation(rounds=3, **SMALL)
    federation.fit(rounds=2)
    folder = tmp_path / "a"
    federation.save(folder)
    with pytest.raises(ValueError, match="already holds a run"):
        federation.save(folder)
    federation.save(folder, overwrite=True)
    assert main(["verify", str(folder)]) == 0
    assert main(["resume", str(folder), "--quiet"]) == 0
    assert main(["evaluate", str(folder)]) == 0
    capsys.readouterr()
    loaded = fm.load(folder)
    digest = lambda of: of.digester()(of.state)[0]
    assert digest(loaded) == digest(whole)
    assert loaded.state.round == 3
    assert loaded.history.rows()[-1]["round"] == len(loaded.history) == 3
    known = [f"{value:.6g}" for value in accuracies(whole.history)]
    assert [f"{value:.6g}" for value in accuracies(loaded.history)] == known
    loaded.fit(rounds=1)
    assert [row["round"] for row in loaded.history.rows("rounds")] == [1, 2, 3, 4]
    list(loaded.rounds(loaded.init(), until=2))  # begun anew: these replace all others
    assert [row["round"] for row in loaded.history.rows("rounds")] == [1, 2]
    with pytest.raises(ValueError, match="nothing to save"):
        fm.Federation(**SMALL).save(tmp_path / "b")
    with pytest.raises(ValueError, match="client_store='host'"):
        disk = fm.Federation(
            rounds=1, client_store="disk", client_folder=tmp_path / "c", **SMALL
        )
        disk.fit()
        disk.save(tmp_path / "d")


def test_networks_are_pytrees_that_predict(tmp_path):
    federation = fm.Federation(rounds=1, **SMALL)
    with pytest.raises(ValueError, match="no state yet"):
        federation.networks(0)
    federation.fit()
    held = federation.networks(client=2)
    assert sorted(held) == ["meme_header", "private", "shared"]
    x = federation.dataset.x_test[:3]
    model = federation.groups[0].model
    inputs = federation.setup.prepare.test(jnp.asarray(x), np.arange(3))
    np.testing.assert_allclose(
        model.logits(held["private"], inputs),
        federation.predict(x, client=2, head="personal"),
        rtol=1e-4,
        atol=1e-5,
    )
    with pytest.raises(ValueError, match="client must be a whole number from 0 to 4"):
        federation.networks(5)


def test_a_picture_has_a_curve_for_each_head():
    federation = fm.Federation(rounds=2, **SMALL)
    with pytest.raises(ValueError, match="no evaluated round"):
        federation.history.plot()
    figure = federation.fit().plot(point="global")
    assert isinstance(figure, matplotlib.figure.Figure)
    [axes] = figure.axes
    assert [line.get_label() for line in axes.lines] == ["personal", "global"]
    drawn = axes.lines[0].get_ydata()
    rows = federation.history.rows()
    wanted = [("global", "personal")]
    expected = [
        row["mean_accuracy"] for row in rows if (row["point"], row["head"]) in wanted
    ]
    np.testing.assert_array_equal(drawn, expected)


@pytest.mark.slow
def test_a_comparison_has_the_numbers_of_single_runs():
    options = {key: value for key, value in SMALL.items() if key != "algorithm"}
    found = fm.compare(
        ["fml", "standalone"], seeds=(0, 3), rounds=2, set={"fml.alpha": 0.7}, **options
    )
    frame = found.frame()
    assert frame[["algorithm", "seed"]].values.tolist() == [
        ["fml", 0], ["fml", 3], ["standalone", 0], ["standalone", 3]
    ]  # fmt: skip
    alone = fm.Federation(
        algorithm="fml", seed=3, rounds=2, set={"algorithm.alpha": 0.7}, **options
    )
    last = alone.fit().rows()[-4]  # point local, head personal, of round 2
    assert frame.loc[1, "last"] == last["mean_accuracy"]
    assert accuracies(found.histories["fml", 3]) == accuracies(alone.history)
    tidy = found.frame("metrics")
    assert tidy.columns[:3].tolist() == ["algorithm", "seed", "round"]
    assert len(tidy) == 4 * 2 * (4 + 2) // 2
    assert "difference to Standalone" in found.markdown() == repr(found)
    assert len(found.plot().axes[0].lines) == 2
    with pytest.raises(ValueError, match="need different names"):
        fm.compare(["fml", "fedjax_mrl.algorithms.fml:fml"], rounds=1, **options)


def test_a_comparison_goes_on_when_a_run_diverges():
    options = {key: value for key, value in SMALL.items() if key != "algorithm"}
    options |= {"learning_rate": 1e30, "rounds": 2}
    found = fm.compare(["standalone"], seeds=(0, 1), **options)
    assert set(found.failed) == {("standalone", 0), ("standalone", 1)}
    assert "became non-finite" in found.frame()["status"][0] or found.failed


def test_without_pandas_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    federation = fm.Federation(rounds=1, **SMALL)
    history = federation.fit()
    with pytest.raises(ImportError, match=r"needs pandas, .* pip install pandas$"):
        history.frame()
    assert history.rows()


def test_the_progress_bar_counts_rounds_on_request(capsys):
    federation = fm.Federation(rounds=2, **SMALL)
    federation.fit()
    assert capsys.readouterr().err == ""  # no terminal
    federation.fit(rounds=1, progress=True)
    assert "1/1" in capsys.readouterr().err
