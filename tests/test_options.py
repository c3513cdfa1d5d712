"""Every option of a configuration does what it says to the numbers, or nothing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl.config import RunConfig, fields
from fedjax_mrl.data import images
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.federation import Federation
from fedjax_mrl.runs import runner
from fedjax_mrl.runs.directory import RunDirectory
from tests.helpers import assert_trees_equal

SCHEDULED = {"algorithm": "fml", "set": {"algorithm.alpha": "linear:0:1"}}
# What each is changed to, beside what it is changed, and after how many rounds it must
# be seen; with 0 in the state before the first one.
CHANGES = {
    "algorithm": ("fedproto", {}, 0),
    "models": (("cnn5",), {}, 0),
    "shared_model": ("cnn5", {"algorithm": "fedmrl", "shared_dim": 2}, 0),
    "feature_dim": (5, {}, 0),
    "shared_dim": (3, {"algorithm": "fedmrl", "shared_dim": 2}, 0),
    "num_clients": (4, {}, 0),
    "participation": (0.9, {}, 1),
    "sampling": ("poisson", {"participation": 0.4}, 1),
    "held_out_clients": (1, {}, 0),
    "partition": ("quantity:0.5", {}, 1),
    "rounds": (7, SCHEDULED, 2),
    "epochs": (1, {}, 1),
    "batch_size": (3, {}, 1),
    "learning_rate": (0.02, {}, 1),
    "learning_rate_decay": ("step:1:0.5", {}, 2),
    "limit_train": (30, {}, 1),
    "momentum": (0.5, {}, 1),
    "weight_decay": (0.0, {}, 1),
    "clip_norm": (0.1, {}, 1),
    "augmentation": ("none", {}, 1),
    "set": ({"algorithm.alpha": 0.25}, SCHEDULED, 1),
    "same_start": (False, {}, 0),
    "seed": (1, {}, 1),
    "init_seed": (1, {}, 0),
    "data_seed": (1, {}, 1),
    "dropout": (0.7, {}, 1),
    "straggler": (1.0, {}, 1),
    "schedule_rounds": (9, SCHEDULED, 2),
}
# How a run is recorded.
RECORDS = {
    "eval_every": 3,
    "checkpoint_every": 1,
    "keep_checkpoints": 1,
    "digest_every": 2,
    "data_dir": "/nowhere",
}
# Tests of their own hold these: what is loaded; equal bits (devices, client_store); the
# same numbers but for rounding.
ELSEWHERE = {"dataset", "devices", "chunk", "client_store", "lowering", "strategies"}
ELSEWHERE |= {"deterministic", "precision", "limit_test", "test_fraction"}
ELSEWHERE |= {"image_size", "dp"}


@functools.cache
def dataset():
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (48, 16, 16, 1)).astype(np.uint8)
    y = (np.arange(48) % 3).astype(np.int32)
    names = ("a", "b", "c")
    return Dataset("toy", x, y, x, y, names, (0.5,), (0.25,), "flip_erase_crop")


def federation(**options):
    base = {
        "algorithm": "standalone",
        "models": ("mlp",),
        "shared_model": "mlp",
        "num_clients": 3,
        "participation": 0.6,
        "partition": "iid",
        "rounds": 4,
        "epochs": 2,
        "batch_size": 4,
        "feature_dim": 4,
        "init_seed": 0,
        "devices": 1,
    }
    return Federation(dataset=dataset(), **(base | options))


@functools.cache
def usual(name):
    """The digest without the change; by name only where something is beside it."""
    _, beside, played = CHANGES[name]
    return digest(played, beside)


def digest(played, options):
    built = federation(**options)
    state = built.init()
    for _ in range(played):
        state, _ = built.play(state)
    return built.digester()(state)[0]


def test_every_option_is_in_one_of_the_three_lists():
    assert sorted([*CHANGES, *RECORDS, *ELSEWHERE]) == sorted(fields())


def test_every_option_is_changed_and_no_other_one():
    given = federation().config
    for name, (value, beside, _) in CHANGES.items():
        before, after = (
            dataclasses.asdict(federation(**options).config)
            for options in (beside, {**beside, name: value})
        )
        assert [n for n in before if before[n] != after[n]] == [name]
    assert given == federation().config


@pytest.mark.parametrize("name", CHANGES)
def test_an_option_that_determines_results_changes_them(name):
    value, beside, played = CHANGES[name]
    # Most have nothing beside them and are seen after one round: "seed" stands for all.
    plain = name if beside or not played else "seed"
    assert digest(played, {**beside, name: value}) != usual(plain)


def test_options_of_the_records_change_no_number(tmp_path):
    found = []
    for name, options in (("usual", {}), ("other", RECORDS)):
        directory = RunDirectory.create(tmp_path / name)
        outcome = runner.run(federation(**options), directory)
        played = {row["round"]: row["digest"] for row in directory.rows("rounds.csv")}
        found.append((outcome.summary["digest"], played))
        # Every so many rounds, and after the last one.
        evaluated = {int(row["round"]) for row in directory.rows("metrics.csv")}
        assert evaluated == ({3, 4} if options else {1, 2, 3, 4})
    (expected, all_rounds), (other, some_rounds) = found
    assert expected == other
    told = {number: sha for number, sha in some_rounds.items() if sha}
    assert set(told) == {"2", "4"} and told.items() <= all_rounds.items()


def test_auto_is_the_augmentation_of_the_data_set():
    assert digest(1, {"augmentation": "flip_erase_crop"}) == usual("seed")


def test_nothing_but_training_is_augmented():
    # Nothing is learned, so that only what prototypes and scores are computed from
    # can make a difference.
    found = []
    for augmentation in ("none", "flip_erase_crop"):
        built = federation(
            algorithm="fedproto", learning_rate=0, augmentation=augmentation
        )
        state, played = built.play(built.init())
        scores = built.evaluate(state)
        found.append((jax.device_get(state.server), scores, played.fetch().metrics))
    (server, scores, losses), (other, others, augmented) = found
    assert_trees_equal(server, other)
    assert_trees_equal(scores, others)
    assert (losses["ce"] != augmented["ce"]).all()
    assert server.known.any()


def test_the_default_optimizer_takes_the_authors_steps(x64):
    # SGD as PyTorch does it, rate 0.01, momentum 0.9, decay 0.001, clipped at 50.
    optimizer = federation().setup.optimizer
    config = RunConfig()
    assert federation().config.learning_rate == config.learning_rate
    draw = np.random.default_rng(0)
    ours = {"w": draw.normal(size=(4, 3)), "b": draw.normal(size=3)}
    theirs = {name: value.copy() for name, value in ours.items()}
    velocity = {name: np.zeros_like(value) for name, value in ours.items()}
    state = optimizer.init(ours)
    for scale in (1.0, 100.0, 3.0):  # norms on both sides of 50
        gradient = {n: scale * draw.normal(size=v.shape) for n, v in ours.items()}
        updates, state = optimizer.update(gradient, state, ours)
        ours = jax.tree.map(jnp.add, ours, updates)
        norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
        assert (norm > 50) == (scale == 100)
        for name, value in theirs.items():
            clipped = gradient[name] * min(1, 50 / (norm + 1e-6))
            velocity[name] = 0.9 * velocity[name] + clipped + 0.001 * value
            theirs[name] = value - 0.01 * velocity[name]
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, atol=1e-12)


def test_images_that_are_packed_for_an_accelerator_are_the_same(monkeypatch):
    """To rounding: another program multiplies and adds in one step or in two."""

    def played(**options):
        built = federation(**options)
        state, _ = built.play(built.init())
        return built.arrays(state)["clients"]

    expected, others = played(), played(augmentation="none")
    pack, seen = images.pack, []

    def packed(x, platform):
        seen.append(platform)
        return pack(x, "tpu")

    monkeypatch.setattr(images, "pack", packed)
    found = played()
    assert seen == ["cpu", "cpu"]
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, found, expected)
    with pytest.raises(AssertionError):
        jax.tree.map(close, found, others)
