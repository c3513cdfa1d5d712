"""Plans for machines that are not here."""

import importlib.util
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import discovery, numerics, programs, sharding
from fedjax_mrl.building import pieces
from fedjax_mrl.building.values import Values
from fedjax_mrl.cli.main import main
from fedjax_mrl.config import RunConfig
from fedjax_mrl.federation import Federation
from fedjax_mrl.models import mlp
from fedjax_mrl.ops import backend, conv, matmul
from fedjax_mrl.planning import (
    advice,
    afar,
    memory,
    planner,
    subject,
    target,
    timing,
)
from fedjax_mrl.planning import plan as planning
from fedjax_mrl.simulation import shapes, strategies
from fedjax_mrl.simulation.group_program import GroupProgram
from tests.helpers import flags

OPTIONS = {
    "models": ("eight",),
    "shared_model": "eight",
    "feature_dim": 8,
    "algorithm": "standalone",
    "num_clients": 5,
    "participation": 0.6,
    "batch_size": 32,
    "rounds": 2,
    "devices": 1,
}
FLAGS = flags(OPTIONS)
TARGET = ["plan", *FLAGS, "--target", "v5e"]


@pytest.fixture(autouse=True, scope="module")
def _tiny():
    def eight(input_shape, num_classes, *, feature_dim, lowering):
        made = mlp.mlp(input_shape, num_classes, feature_dim=feature_dim, hidden=8)
        return made._replace(name="eight")

    discovery.find("fedjax_mrl.models")["eight"] = eight
    yield
    discovery.find.cache_clear()


@pytest.fixture
def on_cpu(monkeypatch):
    """The devices of every target are this CPU, and its compiler is here."""
    monkeypatch.setattr(target, "mesh", lambda wanted: sharding.mesh(wanted.number))


# --- what is meant --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "name", "number"),
    [("v5e", "TPU v5e", 1), ("v6e:4", "TPU v6e", 4), ("h200:8", "NVIDIA H200", 8)],
)
def test_a_target_is_a_chip_and_their_number(word, name, number):
    found = target.parse(word)
    assert (found.chip.title, found.number) == (name, number)
    assert str(found) == f"{number} x {name}"


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("v5", "There is no target 'v5'. Did you mean 'v5e'? Valid: h200, v5e, v6e."),
        ("v5e:3", "--target v5e:N takes 1, 4, 8 as the number of chips on one host"),
        ("v5e:", "got 'v5e:'"),
        ("v6e:four", "got 'v6e:four'"),
    ],
)
def test_others_are_refused_in_a_sentence(capsys, word, answer):
    assert main(["plan", *FLAGS, "--target", word]) == 2
    out, err = capsys.readouterr()
    assert out == "" and answer in err and err.count("\n") == 1


def test_full_speed_is_that_of_the_slower_of_both():
    chip = target.CHIPS["v5e"]
    assert chip.seconds(197e12, 0) == 1 and chip.seconds(0, 819e9) == 1
    assert chip.seconds(197e12, 2 * 819e9) == 2
    assert chip.seconds(None, 1) is None and chip.seconds(1, None) is None


# --- another platform than this machine's ---------------------------------------------


def test_what_follows_from_the_platform_is_the_targets():
    here = strategies.default("auto", 0, backend.current())
    assert here == ("winograd", 1) and conv.resolve("auto") == "winograd"
    with backend.traced_for("tpu"):
        assert strategies.default("auto", 0, backend.current()) == ("native", 1)
        assert conv.resolve("auto") == "native" and conv.resolve("fused") == "fused"
        assert jax.default_backend() == "cpu"
        found = pieces.resolve(RunConfig(**OPTIONS), Values())
    assert found.strategies == {"eight": ("native", 1)}
    assert found.round_config.chunk == 1
    with backend.traced_for("gpu"):
        assert strategies.default("auto", 0, backend.current()) == ("fused", 0)
    data = found.dataset
    assert programs.stored_for("tpu", data.x_train, data.y_train).x.shape == (
        len(data.y_train),
        3072,
    )
    assert strategies.default("auto", 0, backend.current()) == here


def test_functions_that_jax_keeps_are_traced_anew():
    """A CPU rounds operands itself, and an accelerator does not need to."""
    x = jax.ShapeDtypeStruct((4, 3), jnp.float32)

    def trace():
        with numerics.fixed("bfloat16"):
            return str(jax.make_jaxpr(matmul.over_examples)(x, x))

    here = trace()
    with backend.traced_for("tpu"):
        there = trace()
    assert "reduce_precision" in here and "reduce_precision" not in there
    assert trace() == here


def test_an_old_jax_is_refused(on_cpu, monkeypatch, capsys):
    monkeypatch.setattr(backend, "_elsewhere", None)
    assert backend.current() == "cpu"
    assert main(TARGET) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Upgrade it" in err and err.count("\n") == 1


# --- programs from shapes -------------------------------------------------------------


@pytest.mark.parametrize("tasks", [None, {"a": range(10), "b": [0, 1] * 5}])
def test_shapes_make_the_program_that_arrays_make(tasks):
    """The very text, of a group with the examples and members of a round."""
    built = Federation(**OPTIONS, tasks=tasks)
    with numerics.fixed(built.config.precision):
        planned = subject.Elsewhere(built.config, built.mesh, built.values)
        for group in built.groups:
            known = shapes.of(built.algorithm, group.model)
            one = lambda s: jax.ShapeDtypeStruct((1, *s.shape), s.dtype)
            inputs = timing.trial_inputs(jax.tree.map(one, known.broadcast))
            arrays = _lowered_for_a_round(built, group, known.pair, inputs)
            for one_of in (built, planned):
                program = timing.program_of(one_of, group, one_of.round_config)
                assert program.lower(known.pair, inputs).as_text() == arrays


def _lowered_for_a_round(built, group, pair, inputs):
    """The text of a group's program for the arrays of one client."""
    program = timing.program_of(built, group, built.round_config)
    minibatches = np.zeros((1, program.batch_size), np.int32)
    present = [(0, int(group.clients[0]))]
    (wave,), _ = program.waves(present, lambda trial, client: minibatches, np.zeros(1))
    rows = jax.tree.map(lambda s: np.zeros((program.places, *s.shape), s.dtype), pair)
    lowered = program._train.lower(
        jax.device_put(rows, sharding.over_clients(built.mesh)),
        sharding.shapes(inputs, sharding.everywhere(built.mesh)),
        program._examples,
        wave.members,
    )
    return lowered.as_text()


def test_a_plan_afar_is_the_one_here_where_the_devices_are_these(monkeypatch):
    monkeypatch.setattr(planning.host_memory, "resident", lambda: 0)
    built = Federation(**OPTIONS)
    here = planning.make(built, limit=10**12, calibrate=False)
    there = afar.make(subject.Elsewhere(built.config, built.mesh), 10**12)
    assert there.memory == here.memory and there.limit == 10**12
    (group,), (other,) = here.groups, there.groups
    assert (group.name, group.clients) == (other.name, other.clients) == ("eight", 5)
    assert group.working_bytes == other.account.working_bytes > 0
    assert other.together == 1 and other.account.seconds > 0
    assert other.account.flops > 0 and other.account.bytes_accessed > 0


def test_what_the_compiler_refuses_for_its_memory_does_not_fit(monkeypatch):
    """As libtpu words it, and as it once did; the largest program is the batch's."""
    compile_it = GroupProgram.compile

    def small_only(program, lowered):
        if program.batch_size < 32:
            return compile_it(program, lowered)
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
            "for HLO temporaries (74.58G) exceeds available HBM (15.75G)."
        )

    monkeypatch.setattr(GroupProgram, "compile", small_only)
    config = RunConfig(**OPTIONS)
    planned = subject.Elsewhere(config, sharding.mesh(1))
    with pytest.raises(planning.DoesNotFit, match="Give --batch-size 16") as raised:
        afar.make(planned, 2**30)
    assert "about 74.5" in str(raised.value)
    said = "RESOURCE_EXHAUSTED: Used 20.5G of 15.75G hbm. Exceeded by 4.75G."
    assert planner._wanted(said) == int(20.5 * 2**30)
    assert planner._wanted("INTERNAL: 20.5G") is None
    monkeypatch.setattr(planner, "_wanted", lambda said: None)
    with pytest.raises(jax.errors.JaxRuntimeError):
        afar.make(planned, 2**30)


def test_on_an_accelerator_programs_and_what_it_holds_count(monkeypatch):
    """Of the host nothing, though it may hold more; a CPU has programs there."""
    built = Federation(**OPTIONS)
    (compiled,) = planner.Planner(built).compile_all(built.round_config)
    account = compiled.account._replace(code_bytes=2**20)
    compiled = compiled._replace(account=account)
    device = types.SimpleNamespace(platform="tpu")
    mesh = types.SimpleNamespace(size=1, devices=np.array([device]))
    fields = ("dataset", "config", "train")
    other = types.SimpleNamespace(
        mesh=mesh, **{name: getattr(built, name) for name in fields}
    )
    made = types.SimpleNamespace(federation=other, server=planner.Planner(built).server)
    found = memory.at_peak(made, built.round_config, [compiled], 10**12)
    assert found.device["compiled programs"] == 2**20 and found.peak < 2**30
    here = memory.at_peak(planner.Planner(built), built.round_config, [compiled], 0)
    assert "compiled programs" not in here.device
    monkeypatch.setattr(advice, "_smaller", lambda federation: ())
    said = advice.refusal(made, found, [compiled], 10**12, 2**20)
    largest = max(found.device, key=found.device.get)
    assert f"most of it is {largest}" in said and "on each device" in said


# --- the command ----------------------------------------------------------------------


def test_the_command_tells_whose_figures_they_are(
    on_cpu, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(TARGET) == 0
    out, err = capsys.readouterr()
    assert err == "" and not list(tmp_path.iterdir())
    assert "on 1 x TPU v5e; by the compiler, not measured" in out
    assert "of 15.75 GiB of each device (what libtpu's compiler lets" in out
    assert "A model of the compiler, not measured" in out
    (row,) = [line.split() for line in out.splitlines() if line.startswith("  eight ")]
    assert row[1:3] == ["5", "1"]  # clients, and those at once on a CPU
    assert main([*TARGET, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--memory-gib", "0.0001"], "must fit into 0.00 GiB"),
        (["--devices", "4"], "Give --devices 0, or --target v5e:4"),
        (["--batch-size", "0"], "batch"),
    ],
)
def test_the_command_refuses_in_one_line(on_cpu, capsys, words, answer):
    assert main([*TARGET, *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and answer in err and err.count("\n") == 1


@pytest.mark.parametrize(("word", "extra"), [("v6e", "tpu"), ("h200", "cuda13")])
def test_without_the_compiler_one_sentence_says_how_to_get_it(
    capsys, monkeypatch, word, extra
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["plan", *FLAGS, "--target", word]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert (
        f'not installed. Install it with: python -m pip install "jax[{extra}]"' in err
    )


def test_a_compiler_that_does_not_know_the_chip_is_refused(capsys, monkeypatch):
    from jax.experimental import topologies

    def unknown(*args, **options):
        raise RuntimeError("No such\ntopology.")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(topologies, "get_topology_desc", unknown)
    assert main(TARGET) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "cannot describe 1 x TPU v5e (No such topology.)" in err


def test_a_program_for_a_tpu_is_compiled_without_one(capsys):
    pytest.importorskip("libtpu")
    words = [*FLAGS, "--precision", "default"]
    assert main(["plan", *words, "--target", "v5e"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "compiled programs" in out and "on 1 x TPU v5e" in out
    (row,) = [line.split() for line in out.splitlines() if line.startswith("  eight ")]
    assert row[1:3] == ["5", "1"] and float(row[5]) > 0 and float(row[6]) > 0
    assert "of 15.75 GiB of each device" in out
