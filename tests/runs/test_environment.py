"""Runs that go on elsewhere: with another version, on another machine."""

import json
import shutil

import pytest

from fedjax_mrl.cli.main import main
from fedjax_mrl.runs import environment
from fedjax_mrl.runs.directory import RunDirectory

TINY = ["--algorithm", "standalone", "--models", "mlp", "--shared-model", "mlp"]
TINY += ["--num-clients", "4", "--participation", "0.5", "--partition", "iid"]
TINY += ["--feature-dim", "8", "--checkpoint-every", "1", "--keep-checkpoints", "9"]
TINY += ["--devices", "1", "--quiet"]


def elsewhere(monkeypatch):
    """From here on, this is another machine."""
    here = environment.describe()
    there = here | {"packages": here["packages"] | {"jax": "0.0.1"}, "cpu_count": 77}
    there["devices"] = ["cpu", "cpu", "cpu"]
    monkeypatch.setattr(environment, "describe", lambda: there)
    return here, there


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """Two rounds here, two elsewhere; and what was said in between."""
    folder = tmp_path_factory.mktemp("moved") / "run"
    assert main(["run", *TINY, "--rounds", "2", "--out", str(folder)]) == 0
    with pytest.MonkeyPatch.context() as patch:
        here, there = elsewhere(patch)
        assert main(["resume", str(folder), "--rounds", "4", "--quiet"]) == 0
    return folder, here, there


@pytest.fixture
def copied(moved, tmp_path):
    return shutil.copytree(moved[0], tmp_path / "copy")


def held(folder):
    return json.loads((folder / "environment.json").read_text())


def test_every_environment_is_kept_with_its_first_round(moved):
    folder, here, there = moved
    found = held(folder)
    sha = found.pop("data_sha256")
    listed = found.pop("environments")
    assert found.pop("code_sha256") == {}
    assert found == there and len(sha) == 64
    assert listed == [{"from_round": 1, **here}, {"from_round": 3, **there}]


def test_resume_says_in_one_line_what_differs(copied, capsys):
    assert main(["resume", str(copied), "--rounds", "5", "--quiet"]) == 0
    told = capsys.readouterr().err
    jax = environment.version("jax")
    assert told.count("\n") == 1
    assert (
        "another environment than that of round 4" in told
        and f"jax: 0.0.1 -> {jax}" in told
    )
    assert "cpu_count: 77 -> " in told and "devices" not in told
    assert [one["from_round"] for one in held(copied)["environments"]] == [1, 3, 5]


def test_the_same_environment_and_rounds_played_again_add_none(copied, moved):
    run, (_, here, there) = RunDirectory(copied), moved
    firsts = lambda: [one["from_round"] for one in held(copied)["environments"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "describe", lambda: there)
        environment.record(run, 5, {})
        assert firsts() == [1, 3]
        patch.setattr(environment, "describe", lambda: here)
        environment.record(run, 4, {})
        assert firsts() == [1, 3, 4]
        environment.record(run, 3, {})
        assert firsts() == [1]


def spoil(folder, round):
    """Gives a round another digest."""
    sha = RunDirectory(folder).rows("rounds.csv")[round - 1]["digest"]
    text = (folder / "rounds.csv").read_text()
    (folder / "rounds.csv").write_text(text.replace(sha, "0" * 64))


def test_verify_compares_with_the_environment_of_each_round(copied, capsys):
    spoil(copied, 3)
    assert main(["verify", str(copied)]) == 1
    told = capsys.readouterr().out
    assert "jax: 0.0.1 -> " in told and "may explain it" in told
    assert "Rounds from 3 on were recorded in another environment" in told
    spoil(copied, 2)
    assert main(["verify", str(copied)]) == 1
    told = capsys.readouterr().out
    assert "environment is the same" in told and "Rounds from" not in told


def test_files_of_earlier_versions_and_damaged_ones_are_read(copied):
    old = {k: v for k, v in held(copied).items() if k != "environments"}
    (copied / "environment.json").write_text(json.dumps(old))
    environment.record(RunDirectory(copied), 5, {"data_sha256": "0"})
    found = held(copied)
    assert [one["from_round"] for one in found["environments"]] == [1, 5]
    assert "data_sha256" in found and "data_sha256" not in found["environments"][0]
    for text in ("", "[]", "{}", '{"environments": 3}', '{"environments": [{}]}'):
        (copied / "environment.json").write_text(text)
        for one in environment.recorded(RunDirectory(copied)):
            assert environment.changes(one, environment.describe()) == []


def test_a_comparison_that_goes_on_elsewhere_says_so(moved, tmp_path, capsys):
    run = shutil.copytree(moved[0], tmp_path / "standalone-0")
    assert '"schedule_rounds": 2' in (run / "config.json").read_text()
    shutil.rmtree(run / "checkpoints" / "4")
    (run / "summary.json").unlink()
    words = ["compare", "--algorithms", "standalone", *TINY, "--rounds", "4"]
    words += ["--schedule-rounds", "2", "--out", str(tmp_path)]
    assert main(words) == 0
    told = capsys.readouterr().err
    assert (
        "another environment than that of round 3" in told and "jax: 0.0.1 -> " in told
    )
