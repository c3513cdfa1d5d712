"""The script for a real device, tried at toy size on this CPU."""

import json
import subprocess

import pytest

from experiments import device_check

LOSSES = {"device": "cpu", "losses": [2.0, 1.0], "accuracy": 0.5, "digest": "a" * 64}


@pytest.fixture
def carried(monkeypatch):
    """Pieces answer at once; the names of those that were asked, in order."""
    asked = []

    def run(words, *, env, timeout, **options):
        name = words[words.index("--inside") + 1]
        asked.append((name, env))
        fails = name not in ("cpu", "device", "again")
        said = json.dumps(LOSSES) if not fails else "said on the way"
        error = "Traceback\nValueError: no memory\n" if fails else ""
        return subprocess.CompletedProcess(words, int(fails), said + "\n", error)

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_pieces_are_kept_and_only_what_is_missing_is_tried(carried, tmp_path, capsys):
    words = ["--out", str(tmp_path), "--toy", "--pieces"]
    assert device_check.main([*words, "cpu,device,again,products"]) == 0
    names = [name for name, _ in carried]
    assert names == ["cpu", "device", "again", "again", "products"]
    assert carried[0][1]["JAX_PLATFORMS"] == "cpu"
    found = json.loads((tmp_path / "device_check.json").read_text())
    assert found["products"] == {"failed": "ValueError: no memory"}
    shown = (tmp_path / "device_check.md").read_text()
    assert "as on the CPU: yes" in shown and "digests repeat: yes" in shown
    assert shown.strip() in capsys.readouterr().out
    device_check.main([*words, "cpu,device,again,products"])
    assert [name for name, _ in carried][5:] == ["products"]  # only what failed
    device_check.main([*words, "fixed", "--minutes", "0"])
    assert len(carried) == 6  # no time


def test_other_numbers_than_the_cpus_are_told(tmp_path):
    found = {"cpu": LOSSES, "device": LOSSES | {"losses": [2.0, 1.1]}}
    assert device_check.judge(found) == {"as on the CPU": False}
    found["again"] = LOSSES | {"twice": "b" * 64}
    assert device_check.judge(found)["digests repeat"] is False
    assert "played again: DIFFERENT" in device_check.table(found)


def test_a_candidate_keeps_its_settings_and_variables(carried, tmp_path):
    device_check.main(["--out", str(tmp_path), "--pieces", "pace_more_effort"])
    ((name, env),) = carried
    assert name == "pace more effort"
    assert float(env["JAX_EXEC_TIME_OPTIMIZATION_EFFORT"]) > -1


def test_all_pieces_are_tried_and_others_refused(capsys):
    assert device_check.arguments([]).pieces == list(device_check.PIECES)
    with pytest.raises(SystemExit):
        device_check.arguments(["--pieces", "cpu,pace_slowly"])
    assert "no piece 'pace slowly'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_script_runs_on_a_cpu(tmp_path):
    pieces = "plan,cpu,device,pace_default,again"
    words = ["--out", str(tmp_path), "--toy", "--pieces", pieces, "--minutes", "6"]
    assert device_check.main(words) == 0
    found = json.loads((tmp_path / "device_check.json").read_text())
    assert not [one for one in found.values() if "failed" in one]
    assert found["cpu"]["digest"] == found["device"]["digest"]
    assert found["pace default"]["round"] > 0 and found["plan"]["peak"] > 0
