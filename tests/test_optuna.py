"""The recipe with Optuna searches, and goes on from its file."""

import pytest

optuna = pytest.importorskip("optuna")

from experiments.examples import optuna_search  # noqa: E402


def test_a_search_goes_on_from_its_file(tmp_path, capsys, monkeypatch):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    out = ["--rounds", "1", "--out", str(tmp_path / "study")]
    optuna_search.main(["--trials", "1", *out])
    played, objective = [], optuna_search.objective

    def counted(trial, rounds):
        played.append(trial.number)
        return objective(trial, rounds)

    monkeypatch.setattr(optuna_search, "objective", counted)
    optuna_search.main(["--trials", "2", *out])
    optuna_search.main(["--trials", "2", *out])
    assert played == [1]
    printed = capsys.readouterr().out
    assert "1 trials; best " in printed and printed.count("2 trials; best ") == 2
    assert "--learning-rate " in printed and "--shared-dim " in printed
    study = optuna_search.search(tmp_path / "study" / "study.db", 2, 1)
    one, other = study.trials
    assert one.params != other.params
    assert one.intermediate_values == {1: one.value} and 0 < one.value < 1


@pytest.mark.slow
def test_a_trial_that_diverges_or_lags_behind_is_pruned(tmp_path, monkeypatch):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    study.enqueue_trial({"learning_rate": 0.3, "shared_dim": 4})
    monkeypatch.setitem(optuna_search.SETTINGS, "weight_decay", 1e18)
    study.optimize(lambda trial: optuna_search.objective(trial, 2), 1)
    assert study.trials[0].state.name == "PRUNED"
