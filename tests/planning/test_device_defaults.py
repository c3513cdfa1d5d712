"""What is chosen for accelerators, and what the compilers' accounts mean."""

import importlib.util
import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import topologies

from fedjax_mrl import sharding
from fedjax_mrl.config import RunConfig
from fedjax_mrl.federation import Federation
from fedjax_mrl.ops import backend
from fedjax_mrl.planning import planner, target
from fedjax_mrl.protocol import Batches
from fedjax_mrl.simulation import evaluation

SMALL = {
    "models": ("mlp",),
    "shared_model": "mlp",
    "feature_dim": 8,
    "algorithm": "standalone",
    "num_clients": 5,
    "devices": 1,
}


def test_a_tpu_is_compiled_for_with_little_effort_unless_one_says_otherwise():
    assert backend.compiling("cpu") is None and backend.compiling("gpu") is None
    flag, said, default = "jax_exec_time_optimization_effort", 0.5, 0.0
    if not hasattr(jax.config, flag):  # from jax 0.11 on
        flag, said, default = "jax_optimization_level", "O2", "UNKNOWN"
    assert backend.compiling("tpu") is not None
    jax.config.update(flag, said)
    try:
        assert backend.compiling("tpu") is None
    finally:
        jax.config.update(flag, default)


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (
            {"jax_exec_time_optimization_effort": 0.0, "jax_optimization_level": "O2"},
            {"exec_time_optimization_effort": -1.0},
        ),
        ({"jax_optimization_level": "UNKNOWN"}, {"optimization_level": "O1"}),
        ({"jax_optimization_level": "O2"}, None),
    ],
)
def test_little_effort_is_said_as_each_jax_understands_it(
    settings, options, monkeypatch
):
    """That of jax 0.10, and of 0.11 and later, which refuse the earlier option."""
    config = types.SimpleNamespace(**settings)
    monkeypatch.setattr(backend, "jax", types.SimpleNamespace(config=config))
    assert backend.compiling("tpu") == options


def test_jax_takes_that_option_and_a_program_computes_as_ever():
    options = backend.compiling("tpu")
    double = jax.jit(lambda x: 2 * x, compiler_options=options)
    assert double(np.arange(3, dtype=np.float32)).tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    ("total", "found"),
    [(0.25, (0.25, 0)), (-2.75, (0.25, 3)), (-1.0, (None, 1)), (0.0, (None, 0))],
)
def test_parts_without_a_time_are_counted_and_not_added(total, found):
    """A compiler adds -1 for each of them."""
    assert planner._modelled(total) == found


def test_compilers_for_a_tpu_may_be_many_at_once(monkeypatch):
    """libtpu refuses a second process, unless it is told that none opens a chip."""
    described = types.SimpleNamespace(devices=[jax.devices("cpu")[0]])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(topologies, "get_topology_desc", lambda **options: described)
    known = dict(os.environ)
    known.pop("ALLOW_MULTIPLE_LIBTPU_LOAD", None)
    monkeypatch.setattr(os, "environ", known)
    target.mesh(target.parse("v5e"))
    assert known["ALLOW_MULTIPLE_LIBTPU_LOAD"] == "1"


def digest(**options):
    """Of one round on the digits."""
    federation = Federation(**SMALL, **options)
    digester = federation.digester()
    state, _ = federation.play(federation.init())
    return digester(state)[0]


@pytest.mark.slow
def test_precision_is_the_devices_own_and_on_a_cpu_single():
    """The bits are those of full precision, which was the default once."""
    assert RunConfig().precision == "default"
    here = digest()
    assert here == digest(precision="highest") != digest(precision="bfloat16")


def test_tests_take_no_more_clients_at_once_than_memory_may_hold(monkeypatch):
    """As where no number is said; elsewhere than on a CPU that is the default."""
    sizes, map_ = [], lax.map

    def spied(function, values, *, batch_size=None):
        sizes.append(batch_size)
        return map_(function, values, batch_size=batch_size)

    federation = Federation(**SMALL)
    score = lambda client, broadcast, examples: client[0]
    states, table = jnp.arange(5.0), federation.test.examples.y[:5]
    tables = Batches(table[:, None, None], table)
    monkeypatch.setattr(evaluation.lax, "map", spied)
    monkeypatch.setattr(evaluation, "_AT_ONCE", 3)
    for chunk in (0, 4, 9):
        program = evaluation._program(score, chunk, sharding.mesh(1))
        found = program(states, states, (), (), tables)
        assert found.tolist() == states.tolist()
    assert sizes == [3, 4, 5]
