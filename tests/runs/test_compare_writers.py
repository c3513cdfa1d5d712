"""The writers of `fm.compare`: each run has its own."""

import pytest

import fedjax_mrl as fm
from tests.runs.test_writers import SMALL, Noting

OPTIONS = {name: value for name, value in SMALL.items() if name != "algorithm"}


@pytest.mark.slow
def test_every_run_has_writers_of_its_own():
    told = {}

    def writers(name):
        told[name] = Noting("round" if name == "standalone-1-lr0.01" else "")
        return [told[name]]

    rates = {"learning_rate": (0.01, 1e30)}
    with pytest.warns(UserWarning, match="Noting failed in round") as warned:
        found = fm.compare(
            ["standalone"], seeds=(0, 1), rounds=2, writers=writers, grid=rates,
            progress=False, **OPTIONS,
        )  # fmt: skip
    assert len(warned) == 1  # of the writer that fails, which disturbs no other
    assert list(told) == [
        f"standalone-{seed}-lr{rate}" for rate in ("0.01", "1e+30") for seed in (0, 1)
    ]
    (_, start), *rounds, (_, summary) = told["standalone-0-lr0.01"].told
    assert start.name == "standalone-0-lr0.01" and start.after == 0
    assert start.config["seed"] == 0 and start.config["learning_rate"] == 0.01
    assert [number for _, number, _ in rounds] == [1, 2]
    rows = found.rows()
    assert summary["headline"]["last"] == rows[0]["last"]
    assert rounds[-1][2][start.headline] == rows[0]["last"]
    assert len(told["standalone-1-lr0.01"].told) == 2  # begin, and where it failed
    # Runs that diverge end early.
    diverged = told["standalone-1-lr1e+30"].told
    assert len(found.failed) == 2
    assert diverged[0][1].config["seed"] == 1 and diverged[-1] == ("end", {})


def test_a_list_is_refused_before_training():
    with pytest.raises(ValueError, match="a function from the name of a run to a list"):
        fm.compare(["standalone"], writers=[Noting()], rounds=1, **OPTIONS)
    with pytest.raises(ValueError, match="A writer is an object with the methods"):
        fm.compare(["standalone"], writers=lambda name: [1], rounds=1, **OPTIONS)
