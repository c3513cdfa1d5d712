"""The table of methods and targets, which goes on where it was stopped."""

import json

import pytest

from experiments import accelerators_table
from fedjax_mrl import discovery, sharding
from fedjax_mrl.models import mlp
from fedjax_mrl.planning import afar, target


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
    made, make = [], afar.make

    def counted(planned, limit):
        made.append(planned.config.algorithm)
        return make(planned, limit)

    monkeypatch.setattr(afar, "make", counted)
    path = tmp_path / "rows.jsonl"
    words = ["--models", "eight", "--clients", "5", "--rows", str(path)]
    accelerators_table.main([*words, "--algorithms", "standalone"])
    (line,) = path.read_text().splitlines()
    found = json.loads(line)
    assert found["groups"][0]["name"] == "eight" and found["limit"] > found["peak"] > 0
    capsys.readouterr()
    with path.open("a") as file:
        file.write('{"target": "v5e", "algo')  # stopped while it wrote
    accelerators_table.main([*words, "--algorithms", "standalone,fedsgd"])
    assert made == ["standalone"]
    whole, refused = map(json.loads, path.read_text().splitlines())
    assert whole == found and "no algorithm 'fedsgd'" in refused["refused"]
    shown = capsys.readouterr().out.splitlines()
    assert shown[2].startswith("| v5e | standalone | eight | 1 |")
    assert shown[3].startswith("| v5e | fedsgd | There is no algorithm")
