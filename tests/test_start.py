"""A run begins soon: what it imports, and how often it traces the same."""

import importlib.util
import subprocess
import sys

import jax
import numpy as np

import fedjax_mrl as fm
from fedjax_mrl.datasets import digits
from fedjax_mrl.learning import local
from fedjax_mrl.simulation import flops, mapping

# None of these is needed to train on digits; together they take longer to import than
# JAX does.
HEAVY = {
    "matplotlib.pyplot",
    "pandas",
    "requests",
    "scipy",
    "sklearn",
    "tensorflow",
    "tensorflow_datasets",
}


def test_a_run_imports_nothing_heavy_that_it_does_not_need(tmp_path):
    program = (
        "import sys\n"
        "from fedjax_mrl.cli import main\n"
        "status = main.main(sys.argv[1:])\n"
        f"print(status, sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    words = "run --models mlp --shared-model mlp --num-clients 5 --rounds 1 --quiet"
    command = [sys.executable, "-c", program, *words.split(), "--out", tmp_path / "a"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "0 []", done.stderr


def test_the_command_line_is_read_without_jax_and_matplotlib():
    program = (
        "import sys\n"
        "from fedjax_mrl.cli import main\n"
        "main.parse(['run', '--rounds', '1'])\n"
        "print(sorted({'jax', 'flax', 'matplotlib', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_digits_are_found_where_scikit_learn_keeps_them_elsewhere(monkeypatch):
    images, labels = digits._read()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    others = digits._read()
    np.testing.assert_array_equal(images, others[0], strict=True)
    np.testing.assert_array_equal(labels, others[1], strict=True)


def test_a_visit_is_traced_once_for_shapes_and_loop():
    traced = []

    def visit(state, member):
        traced.append(1)
        return state + member, state

    several = jax.jit(lambda *given: mapping.over_members(visit, *given, chunk=1))
    states, outputs = several(np.arange(4.0), np.arange(4.0), np.int32(3))
    assert len(traced) == 1
    np.testing.assert_array_equal(states, [0, 2, 4, 3])
    np.testing.assert_array_equal(outputs[:3], [0, 1, 2])


def test_a_loss_is_traced_once_for_the_local_epochs(monkeypatch):
    traced = []
    train = local.train

    def watched(loss, *rest):
        def noted(*given):
            traced.append(1)
            return loss(*given)

        return train(noted, *rest)

    monkeypatch.setattr(local, "train", watched)
    federation = fm.Federation(
        algorithm="standalone",
        models=("mlp",),
        feature_dim=8,
        num_clients=5,
        rounds=1,
    )
    traced.clear()
    federation.play(federation.init())
    assert len(traced) == 1


def test_work_is_traced_once_however_often_it_is_counted():
    traced = []

    @jax.jit
    def product(x):
        return x @ x

    def function(x):
        traced.append(1)
        return product(x)

    count = flops.counter(function, np.ones((2, 2)))
    assert [count({}), count({"product": 3}), count({"product": 0})] == [16, 48, 0]
    assert len(traced) == 1
