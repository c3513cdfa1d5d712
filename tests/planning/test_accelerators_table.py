"""The table of methods and targets, which goes on where it was stopped."""

import json

import pytest

from experiments import accelerators_table
from fedjax_mrl import discovery, sharding
from fedjax_mrl.models import mlp
from fedjax_mrl.planning import memory, planner, target


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    def eight(input_shape, num_classes, *, feature_dim, lowering):
        made = mlp.mlp(input_shape, num_classes, feature_dim=feature_dim, hidden=8)
        return made._replace(name="eight")

    discovery.find("fedjax_mrl.models")["eight"] = eight
    monkeypatch.setattr(target, "mesh", lambda wanted: sharding.mesh(1))
    yield
    discovery.find.cache_clear()


def test_lines_are_made_once_and_a_refusal_is_one(tmp_path, capsys, monkeypatch):
    made, make = [], planner.Planner.compile

    def counted(planner, group, settings):
        made.append(planner.federation.config.algorithm)
        return make(planner, group, settings)

    monkeypatch.setattr(planner.Planner, "compile", counted)
    path = tmp_path / "rows.jsonl"
    words = ["--models", "eight", "--clients", "5", "--rows", str(path)]
    accelerators_table.main([*words, "--algorithms", "standalone"])
    (line,) = path.read_text().splitlines()
    found = json.loads(line)
    assert found["architecture"] == "eight" and found["limit"] > found["peak"] > 0
    assert found["account"]["bytes_accessed"] > 0 and found["cpu_seconds"] > 0
    capsys.readouterr()
    with path.open("a") as file:
        file.write('{"target": "v5e", "algo')  # stopped while it wrote
    accelerators_table.main([*words, "--algorithms", "standalone,fedsgd"])
    assert made == ["standalone"]
    whole, refused = map(json.loads, path.read_text().splitlines())
    assert whole == found and "no algorithm 'fedsgd'" in refused["refused"]
    shown = capsys.readouterr().out.splitlines()
    assert shown[2].startswith("| digits | v5e | standalone | eight | winograd, 1 at")
    assert shown[3].startswith("| digits | v5e | fedsgd | eight | There is no algo")
    accelerators_table.main([*words, "--algorithms", "standalone", "--again"])
    (left,) = path.read_text().splitlines()
    assert json.loads(left) == found and made == ["standalone"]


def test_one_group_is_compiled_and_stands_for_the_others(tmp_path, monkeypatch):
    """The peak counts the states of all groups, whichever is compiled."""
    found = discovery.find("fedjax_mrl.models")
    found["other"] = found["eight"]
    counted, at_peak = [], memory.at_peak

    def spied(made, config, programs, process):
        counted.append([program.program.group.clients.size for program in programs])
        return at_peak(made, config, programs, process)

    monkeypatch.setattr(memory, "at_peak", spied)
    path = tmp_path / "rows.jsonl"
    words = ["--algorithms", "standalone", "--clients", "10", "--rows", str(path)]
    accelerators_table.main([*words, "--models", "eight,other", "--only", "other"])
    (row,) = map(json.loads, path.read_text().splitlines())
    assert row["architecture"] == "other" and row["models"] == "eight,other"
    assert counted == [[5, 5]]
