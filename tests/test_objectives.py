"""Clients with different tasks on the same images (FML, heterogeneous objectives)."""

import jax
import numpy as np
import pytest

from experiments import objectives
from fedjax_mrl import algorithms, models
from tests.helpers import Toy


@pytest.mark.slow
def test_three_tasks_on_real_digits_learn_together():
    accuracy = objectives.run(5)
    # Chance is 0.1, 0.5 and 0.5; a network of this size gets well beyond it.
    assert accuracy["digit"] > 0.5
    assert accuracy["odd"] > 0.7
    assert accuracy["below five"] > 0.7


def test_only_the_extractor_travels_and_headers_fit_the_task():
    toy = Toy("standalone")
    algorithm = algorithms.build("fml", toy.setup, share="extractor")
    broadcast = jax.eval_shape(algorithm.server.init, jax.random.key(0))
    assert jax.tree.leaves(broadcast.header) == []
    two = models.build("mlp", toy.shape, 2, feature_dim=8, hidden=4)
    state = algorithm.client(two).init(jax.random.key(0))
    assert state.meme_header["kernel"].shape == (8, 2)
    assert state.private.header["kernel"].shape == (8, 2)
    x = toy.setup.prepare.test(toy.examples.x, np.arange(3))
    server = algorithm.server.init(jax.random.key(1))
    for logits in algorithm.client(two).predict(server, state, x).values():
        assert logits.shape == (3, 2)


def test_a_shared_header_refuses_a_task_of_another_size():
    toy = Toy("standalone")
    algorithm = algorithms.build("fml", toy.setup)
    with pytest.raises(ValueError, match="share=extractor"):
        algorithm.client(models.build("mlp", toy.shape, 2, feature_dim=8))
