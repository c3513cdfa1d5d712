"""Searches a learning rate and FedMRL's width with Optuna; resumes from SQLite.

    python -m experiments.examples.optuna_search [--trials 20] [--out DIR]

Needs `pip install optuna`. The study lies in DIR/study.db: killed and started again it
goes on with the trials that are missing, and more --trials add to it. A trial that lags
behind the others is pruned after some rounds.
"""

import argparse
import pathlib
from collections.abc import Sequence

import optuna

import fedjax_mrl as fm

SETTINGS = {
    "models": ("mlp",),
    "shared_model": "mlp",
    "feature_dim": 32,
    "num_clients": 5,
    "limit_train": 300,
    "limit_test": 200,
}


def objective(trial: optuna.Trial, rounds: int) -> float:
    """The mean accuracy of all clients after the last round of one trial."""
    federation = fm.Federation(
        learning_rate=trial.suggest_float("learning_rate", 1e-3, 0.3, log=True),
        shared_dim=trial.suggest_int("shared_dim", 4, 24, step=4),
        rounds=rounds,
        **SETTINGS,
    )
    try:
        for result in federation.rounds():
            trial.report(result.accuracy, result.state.round)
            if trial.should_prune():
                raise optuna.TrialPruned
    except fm.Diverged:
        raise optuna.TrialPruned from None
    return result.accuracy


def search(path: pathlib.Path, trials: int, rounds: int) -> optuna.Study:
    """The study in a file, after so many trials; a trial that a kill cut off is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{path}",
        study_name="fedmrl",
        direction="maximize",
        load_if_exists=True,
    )
    ended = len([trial for trial in study.trials if trial.state.is_finished()])
    study.sampler = optuna.samplers.TPESampler(seed=ended)  # draws no point twice
    study.optimize(lambda trial: objective(trial, rounds), max(trials - ended, 0))
    return study


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line, or the words given instead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20, help="of the study, in all")
    parser.add_argument("--rounds", type=int, default=10, help="of a trial")
    parser.add_argument("--out", type=pathlib.Path, default="runs/optuna")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Searches and prints the best trial."""
    args = arguments(words)
    study = search(args.out / "study.db", args.trials, args.rounds)
    print(f"{len(study.trials)} trials; best {study.best_value:.4f} with")
    print(
        "  ".join(f"--{k.replace('_', '-')} {v}" for k, v in study.best_params.items())
    )


if __name__ == "__main__":
    main()
