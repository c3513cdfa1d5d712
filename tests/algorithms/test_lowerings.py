"""A round of FedMRL with the convolutions that a CPU uses, and with the plain ones.

The networks of the oracle have too few channels for the default of a CPU to differ.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import algorithms
from fedjax_mrl.data import images
from fedjax_mrl.learning import optimizers
from fedjax_mrl.models import cnn
from fedjax_mrl.ops import conv, conv_pool
from fedjax_mrl.protocol import Examples, Setup
from fedjax_mrl.simulation import initialization, population, rounds
from fedjax_mrl.simulation.settings import RoundConfig
from fedjax_mrl.simulation.state import State


def network(name, lowering, channels=(6, 8), width=5):
    sizes = {"channels": channels, "hidden": 7, "feature_dim": width}
    return cnn.cnn(name, (16, 16, 3), 3, lowering=lowering, **sizes)


def after_a_round(lowering, dtype):
    draw = np.random.default_rng(0)
    examples = Examples(
        jnp.asarray(draw.normal(size=(22, 16, 16, 3)), dtype),
        jnp.asarray(np.arange(22) % 3, jnp.int32),
    )
    setup = Setup(
        shared=lambda width: network("shared", lowering, width=width),
        feature_dim=5,
        num_classes=3,
        optimizer=optimizers.sgd(0.05),
        prepare=images.prepare((0.0,) * 3, (1.0,) * 3, "raw"),
    )
    algorithm = algorithms.build("fedmrl", setup, shared_dim=4)
    groups = population.assign(2, [network("a", lowering)])
    config = RoundConfig(seed=0, cohort_size=2, epochs=2, batch_size=4)
    with jax.enable_x64(False):  # initial weights are drawn in float32
        state = initialization.init(algorithm, groups, config)
    cast = lambda leaf: leaf.astype(dtype)
    state = State(0, *jax.tree.map(cast, tuple(state[1:])))
    train = np.split(np.arange(22, dtype=np.int32), [13])
    play = rounds.make(algorithm, groups, examples, train, config)
    state, played = play(state)
    return jax.device_get((state.server, state.clients, played.metrics))


@pytest.mark.slow
def test_the_default_of_a_cpu_gives_the_numbers_of_plain_convolutions(x64, monkeypatch):
    assert conv.resolve("auto") == "winograd"
    used, plain = [], conv_pool.conv_relu_pool

    def counted(form, x, *rest):
        used.append((form.winograd, x.shape[-1]))
        return plain(form, x, *rest)

    monkeypatch.setattr(conv_pool, "conv_relu_pool", counted)
    found = after_a_round("auto", jnp.float64)
    assert set(used) == {(False, 3), (True, 6)}
    used.clear()
    expected = after_a_round("native", jnp.float64)
    assert not used
    leaves = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for ours, theirs in leaves:
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, theirs, atol=1e-9, rtol=0)
