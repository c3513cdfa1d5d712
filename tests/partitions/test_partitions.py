import os
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_mrl import partitions, rng
from fedjax_mrl.partitions import Partition, PartitionError, _deal
from fedjax_mrl.runs import pictures

quick = settings(max_examples=40, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def labels(num_classes, per_class, seed=0):
    """Shuffled labels, `per_class` of each class."""
    y = np.repeat(np.arange(num_classes), per_class)
    return np.random.default_rng(seed).permutation(y)


def counts(parts, y, num_classes):
    """Images of each client and class: [N, L]."""
    return np.stack([np.bincount(y[part], minlength=num_classes) for part in parts])


def sizes(parts):
    return np.array([part.size for part in parts])


def assert_valid(partition, num_clients, num_train, num_test):
    for parts, num in zip(partition, (num_train, num_test), strict=True):
        assert len(parts) == num_clients
        every = np.concatenate(parts)
        assert every.dtype == np.int32 and all(p.dtype == np.int32 for p in parts)
        assert np.unique(every).size == every.size
        assert every.min() >= 0 and every.max() < num
        assert all((np.diff(part) > 0).all() for part in parts)
        assert sizes(parts).min() >= 1


def assert_complete(partition, num_train, num_test):
    for parts, num in zip(partition, (num_train, num_test), strict=True):
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(num))


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        for x, y in zip(a, b, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


# The classes


@st.composite
def classes_and_clients(draw):
    num_classes = draw(st.integers(1, 12))
    per_client = draw(st.integers(1, num_classes))
    step = num_classes // np.gcd(num_classes, per_client)
    return num_classes, per_client, int(step) * draw(st.integers(1, 3))


@quick
@given(classes_and_clients(), seeds)
def test_class_gives_every_client_its_number_of_classes(case, seed):
    num_classes, per_client, num_clients = case
    portions = num_clients * per_client // num_classes
    y_train = labels(num_classes, 8 * portions, seed)
    y_test = labels(num_classes, 4 * portions, seed)
    made = partitions.make(f"class:{per_client}", y_train, y_test, num_clients, seed)
    assert_valid(made, num_clients, y_train.size, y_test.size)
    train = counts(made.train, y_train, num_classes)
    test = counts(made.test, y_test, num_classes)
    np.testing.assert_array_equal((train > 0).sum(axis=1), per_client)
    np.testing.assert_array_equal((train > 0).sum(axis=0), portions)
    np.testing.assert_array_equal(train > 0, test > 0)
    # 80% are used, and rounding down loses less than one image a portion.
    used = y_train.size * 4 // 5
    assert used - portions * num_classes < train.sum() <= used
    assert (test.sum(axis=0) > 4 * portions - portions).all()


def test_class_uses_the_same_shares_for_train_and_test():
    y_train, y_test = labels(10, 5000), labels(10, 1000)
    made = partitions.make("class:6", y_train, y_test, num_clients=20, seed=1)
    train, test = counts(made.train, y_train, 10), counts(made.test, y_test, 10)
    portions = 12
    # A piece of k images out of n was floor(n * share), so the share is in
    # [k / n, (k + 1) / n); n is known to lie in [sum, sum + portions).
    low = np.maximum(train / (train.sum(axis=0) + portions), test / 1000)
    high = np.minimum((train + 1) / train.sum(axis=0), (test + 1) / 1000)
    assert (low < high)[train > 0].all()
    # U(0.4, 0.6) over the sum of 12 such: between these bounds, and they vary.
    shares = (test / 1000)[test > 0]
    assert shares.min() > 0.4 / (0.4 + 11 * 0.6) - 0.001
    assert shares.max() < 0.6 / (0.6 + 11 * 0.4)
    # Relative standard deviation of U(0.4, 0.6): 0.0577 / 0.5 = 0.115.
    assert 0.09 < shares.std() / shares.mean() < 0.14


def test_class_prefers_the_classes_with_most_portions_left():
    y = labels(10, 100)
    made = partitions.make("class:2", y, y, num_clients=20, seed=3)
    held = counts(made.train, y, 10) > 0
    # 5 clients take all 10 classes once, before any class is taken again.
    for turn in held.reshape(4, 5, 10):
        np.testing.assert_array_equal(turn.sum(axis=0), 1)


def test_class_picks_uniformly():
    y = labels(6, 20)
    pairs = np.zeros((6, 6))
    for seed in range(600):
        made = partitions.make("class:2", y, y, num_clients=6, seed=seed)
        for client in (2, 5):  # the last of a turn: what the others left
            pairs[tuple(np.unique(y[made.train[client]]))] += 1
    seen = pairs[np.triu_indices(6, 1)]
    assert seen.sum() == 1200
    # Chi squared with 14 degrees of freedom: mean 14, standard deviation 5.3.
    assert ((seen - 80) ** 2 / 80).sum() < 14 + 5 * 5.3


def test_class_leaves_a_random_fifth_to_nobody():
    y = labels(10, 500)
    left = []
    for seed in range(2):
        made = partitions.make("class:2", y, y, num_clients=5, seed=seed)
        assert np.concatenate(made.train).size == 4000  # one portion: no rounding
        left.append(np.setdiff1d(np.arange(5000), np.concatenate(made.train)))
    # Two random fifths of 5000 share 200, with a standard deviation of 11.3.
    assert abs(np.intersect1d(*left).size - 200) < 57
    assert abs(left[0].mean() - 2500) < 5 * 1443 / 1000**0.5


def test_ten_clients_with_two_classes_of_cifar10():
    y_train, y_test = labels(10, 5000), labels(10, 1000)
    made = partitions.make("class:2", y_train, y_test, num_clients=10, seed=0)
    # Two portions of a class have shares from 0.4 to 0.6, and a client has two.
    for parts, mean in ((made.train, 4000), (made.test, 1000)):
        assert abs(sizes(parts).mean() - mean) < 2
        assert (abs(sizes(parts) - mean) < 0.21 * mean).all()


def test_ten_clients_with_ten_classes_of_cifar100_share_none():
    y_train, y_test = labels(100, 500), labels(100, 100)
    made = partitions.make("class:10", y_train, y_test, num_clients=10, seed=0)
    held = counts(made.train, y_train, 100) > 0
    np.testing.assert_array_equal(held.sum(axis=0), 1)
    np.testing.assert_array_equal(held, counts(made.test, y_test, 100) > 0)
    assert sizes(made.train).sum() == 40_000
    np.testing.assert_array_equal(sizes(made.test), 1000)


def test_class_works_where_a_portion_has_less_than_one_test_image():
    y_train, y_test = labels(20, 100), labels(20, 20)
    made = partitions.make("class:20", y_train, y_test, num_clients=20, seed=0)
    assert_valid(made, 20, y_train.size, y_test.size)
    assert (counts(made.train, y_train, 20) > 0).all()


@pytest.mark.parametrize(
    "text,num_clients,hint",
    [
        # 3 * 2 = 6 portions of 10 classes: the floor is 0.
        ("class:2", 3, "num_clients to a multiple of 5, or .* a multiple of 10"),
        # 8 * 2 = 16 portions, and one of each class makes 10.
        ("class:2", 8, "num_clients to a multiple of 5, or .* a multiple of 5"),
        ("class:3", 5, "num_clients to a multiple of 10, or .* a multiple of 2"),
    ],
)
def test_portions_that_do_not_suffice_are_refused(text, num_clients, hint):
    y = labels(10, 50)
    with pytest.raises(PartitionError, match=f"equally many portions.*{hint}"):
        partitions.make(text, y, y, num_clients, seed=0)


@pytest.mark.parametrize("text", ["class", "class:0", "class:11", "class:2.5"])
def test_the_number_of_classes_a_client_must_be_possible(text):
    y = labels(10, 50)
    with pytest.raises(PartitionError, match="whole number from 1 to 10"):
        partitions.make(text, y, y, 10, seed=0)


@pytest.mark.parametrize("train,test,part", [(4, 50, "training"), (50, 4, "test")])
def test_too_few_images_for_the_portions_are_refused(train, test, part):
    y_train, y_test = labels(10, train), labels(10, test)
    with pytest.raises(PartitionError, match=f"too few {part} images for 8 portions"):
        partitions.make("class:2", y_train, y_test, 40, seed=0)


# The others


@quick
@given(
    st.sampled_from(["iid", "quantity:0.01", "quantity:1.0", "quantity:1e6"]),
    st.integers(1, 30),
    st.integers(0, 200),
    st.integers(0, 50),
    seeds,
)
def test_iid_and_quantity_are_complete(text, num_clients, more, more_test, seed):
    y_train = np.zeros(num_clients + more, np.int64)
    y_test = np.zeros(num_clients + more_test, np.int64)
    made = partitions.make(text, y_train, y_test, num_clients, seed)
    assert_valid(made, num_clients, y_train.size, y_test.size)
    assert_complete(made, y_train.size, y_test.size)
    if text == "iid":
        assert np.ptp(sizes(made.train)) <= 1 and np.ptp(sizes(made.test)) <= 1
    least = max(1, min(10, y_train.size // (4 * num_clients)))
    assert sizes(made.train).min() >= least


@quick
@given(
    st.sampled_from(["0.1", "0.5", "3", "1e6"]),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(50, 100),
    seeds,
)
def test_dirichlet_is_complete(alpha, num_clients, num_classes, per_class, seed):
    y_train = labels(num_classes, 4 * per_class, seed)
    y_test = labels(num_classes, per_class, seed)
    try:
        made = partitions.make(f"dirichlet:{alpha}", y_train, y_test, num_clients, seed)
    except PartitionError:
        # Only where it is hopeless: one client takes nearly all of nearly every class.
        assert alpha == "0.1" and num_clients > num_classes
        return
    assert_valid(made, num_clients, y_train.size, y_test.size)
    assert_complete(made, y_train.size, y_test.size)
    least = max(1, min(10, y_train.size // (4 * num_clients)))
    assert sizes(made.train).min() >= least
    train = counts(made.train, y_train, num_classes)
    test = counts(made.test, y_test, num_classes)
    assert (train[test > 0] > 0).all()
    # The same shares, up to the one image by which rounding can be off.
    assert (abs(train / (4 * per_class) - test / per_class) < 1 / per_class).all()


def test_dirichlet_tests_no_client_on_a_class_it_has_not_seen():
    # Many more test than training images: shares that round to nothing in training
    # would be worth test images.
    y_train, y_test = labels(10, 20), labels(10, 500)
    for seed in range(20):
        made = partitions.make("dirichlet:0.2", y_train, y_test, 5, seed)
        train, test = counts(made.train, y_train, 10), counts(made.test, y_test, 10)
        np.testing.assert_array_equal(train > 0, test > 0)


def test_dirichlet_gives_every_client_a_test_image():
    y_train, y_test = labels(2, 500), labels(2, 4)
    for seed in range(20):
        made = partitions.make("dirichlet:0.5", y_train, y_test, 4, seed)
        assert sizes(made.test).min() >= 1


def test_dirichlet_shares_have_the_mean_and_variance_of_their_law():
    y = labels(20, 400)
    made = [partitions.make("dirichlet:0.5", y, y, 4, seed) for seed in range(50)]
    shares = np.stack([counts(m.train, y, 20) / 400 for m in made])  # [50, 4, 20]
    # Sums to one over clients, so the mean over all is trivial; not over seeds.
    # Dir(a) over n: variance (1/n)(1 - 1/n) / (n a + 1) = 0.0625 of each share.
    assert abs(shares.var() / 0.0625 - 1) < 0.1
    # 1000 draws a client: standard error 0.25 / sqrt(1000) = 0.0079; five of them.
    assert (abs(shares.mean(axis=(0, 2)) - 0.25) < 0.04).all()
    # Classes are independent: means over 20 of them have a 20th of the variance.
    assert abs(shares.mean(axis=2).var() / (0.0625 / 20) - 1) < 0.5


def test_quantity_sizes_have_the_variance_of_their_law():
    y = np.zeros(4000, np.int64)
    made = [partitions.make("quantity:1.0", y, y, 4, seed) for seed in range(400)]
    shares = np.stack([sizes(m.train) for m in made]) / 4000
    # Dir(1) over 4: variance (1/4)(3/4) / 5 = 0.0375; the minimum of 10 takes 1% off
    # every share but one. 1600 draws: the estimate is good to 10%.
    assert abs(shares.var() / 0.0375 - 1) < 0.15
    assert (abs(shares.mean(axis=0) - 0.25) < 5 * 0.194 / 20).all()
    for m in made:
        train, test = sizes(m.train), sizes(m.test)
        assert (abs(train - test) <= 4).all()  # shares as equal as the minima allow


def test_quantity_has_every_class_in_proportion():
    y = labels(5, 2000)
    made = partitions.make("quantity:1.0", y, y, 4, seed=0)
    have = counts(made.train, y, 5)
    expected = have.sum(axis=1, keepdims=True) / 5
    assert (abs(have - expected) < 5 * np.sqrt(expected)).all()


def test_dirichlet_stops_trying():
    y = labels(2, 100)
    with pytest.raises(
        PartitionError,
        match=r"at least 5 training images and 1 test image.*concentration 0.01 and "
        r"10 clients.*larger concentration or fewer clients",
    ):
        partitions.make("dirichlet:0.01", y, y, 10, seed=0)


@pytest.mark.parametrize("argument", ["", ":0", ":-1", ":nan", ":inf", ":1e7"])
@pytest.mark.parametrize("name", ["dirichlet", "quantity"])
def test_a_concentration_must_be_possible(name, argument):
    y = labels(2, 100)
    with pytest.raises(PartitionError, match=f"concentration in .*'{name}:0.5'"):
        partitions.make(name + argument, y, y, 10, seed=0)


def test_iid_takes_no_argument():
    y = labels(2, 100)
    with pytest.raises(PartitionError, match="takes no argument, but it is 3; write"):
        partitions.make("iid:3", y, y, 10, seed=0)


@quick
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(0, 1000), min_size=1, max_size=20).filter(any),
)
def test_apportion_is_exact_to_less_than_one(total, weights):
    weights = np.array(weights)
    for given_weights in (weights, weights / 7):
        parts = _deal.apportion(total, given_weights)
        assert parts.sum() == total and parts.min() >= 0
        exact = total * weights / weights.sum()
        assert (abs(parts - exact) < 1 + 1e-9).all()
        assert not parts[weights == 0].any()


# All of them

TEXTS = ["class:2", "dirichlet:0.5", "iid", "quantity:1.0"]


@pytest.mark.parametrize("text", TEXTS)
def test_the_seed_decides_and_nothing_else_does(text):
    y_train, y_test = labels(10, 100), labels(10, 20)
    np.random.seed(0)  # noqa: NPY002
    first = partitions.make(text, y_train, y_test, 10, seed=5)
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert_same(first, partitions.make(text, y_train, y_test, 10, seed=5))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    other = partitions.make(text, y_train, y_test, 10, seed=6)
    for a, b in zip(first, other, strict=True):
        assert not np.array_equal(np.concatenate(a), np.concatenate(b))


@pytest.mark.parametrize("text", TEXTS)
def test_schemes_draw_from_the_stream_for_partitions(text):
    y = labels(10, 100)
    name, _, argument = text.partition(":")
    argument = float(argument) if argument else None
    stream = rng.host(5, rng.Purpose.PARTITION)
    direct = partitions.get(name)(y, y, 10, argument, stream)
    assert_same(direct, partitions.make(text, y, y, 10, seed=5))


@pytest.mark.parametrize("text", ["class:1", "dirichlet:5", "iid", "quantity:5"])
def test_the_order_of_the_images_does_not_matter(text):
    y = np.zeros(1000, np.int64)
    made = partitions.make(text, y, y, 4, seed=0)
    for parts in made:
        for positions in parts:
            # Of n random positions in 1000 the mean has a standard deviation below
            # 289 / sqrt(n); where an image comes from says nothing.
            assert abs(positions.mean() - 500) < 5 * 289 / positions.size**0.5


@pytest.mark.parametrize("text", TEXTS)
def test_labels_may_have_gaps_and_any_integer_dtype(text):
    y_train, y_test = labels(10, 100), labels(10, 20)
    expected = partitions.make(text, y_train, y_test, 10, seed=5)
    gaps = (3 * y_train + 7).astype(np.uint8), (3 * y_test + 7).astype(np.uint8)
    assert_same(expected, partitions.make(text, *gaps, 10, seed=5))


@pytest.mark.parametrize("text", TEXTS)
def test_a_saved_partition_is_read_back(text, tmp_path):
    y = labels(10, 20)
    made = partitions.make(text, y, y, 5, seed=5)
    partitions.save(tmp_path / "partition.npz", made)
    assert_same(made, partitions.load(tmp_path / "partition.npz"))
    assert os.listdir(tmp_path) == ["partition.npz"]


def test_parts_without_images_survive_saving(tmp_path):
    some, none = np.array([3, 5], np.int32), np.zeros(0, np.int32)
    partition = Partition((none, some, none), (some, none, none))
    partitions.save(tmp_path / "p.npz", partition)
    assert_same(partition, partitions.load(tmp_path / "p.npz"))


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    y = labels(10, 20)
    path = tmp_path / "partition.npz"
    made = partitions.make("iid", y, y, 5, seed=5)
    partitions.save(path, made)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        partitions.save(path, partitions.make("iid", y, y, 5, seed=6))
    assert_same(made, partitions.load(path))
    assert os.listdir(tmp_path) == ["partition.npz"]


def test_a_file_that_is_no_partition_is_refused(tmp_path):
    path = tmp_path / "other.npz"
    with pytest.raises(PartitionError, match=r"other.npz must be a readable file"):
        partitions.load(path)
    made = Partition((np.arange(500, dtype=np.int32),), (np.zeros(0, np.int32),))
    partitions.save(path, made)
    half = path.read_bytes()[:1500]
    np.savez(path, train=np.arange(3))
    other = path.read_bytes()
    np.savez(path, train=np.array([None]), train_offsets=np.array([0, 1]))
    objects = path.read_bytes()
    for content in (b"", b"text", half, half[:3], other, objects):
        path.write_bytes(content)
        with pytest.raises(PartitionError, match=r"other.npz must be a file that"):
            partitions.load(path)


def test_the_names_are_those_of_the_files():
    folder = pathlib.Path(partitions.__file__).parent
    files = {f.stem.rstrip("_") for f in folder.glob("[a-z]*.py")}
    drawn = {text.partition(":")[0] for text in TEXTS}
    assert set(partitions.names()) == files == drawn | {"natural"}
    for name in partitions.names():
        assert partitions.get(name).__doc__


@pytest.mark.parametrize("text", ["", ":", "iid:", "class 2", "class:2 3", "2", ":2"])
def test_a_text_that_is_none_is_answered_with_examples(text):
    y = labels(2, 10)
    with pytest.raises(PartitionError, match="name:argument, for example 'class:2'"):
        partitions.make(text, y, y, 2, seed=0)


def test_an_argument_must_be_a_number():
    y = labels(2, 10)
    with pytest.raises(PartitionError, match=r"be a number.*'class:two' is 'two'"):
        partitions.make("class:two", y, y, 2, seed=0)


def test_an_unknown_name_is_answered_with_the_nearest():
    y = labels(2, 10)
    with pytest.raises(
        PartitionError, match=r"no partition 'Dirichlt'. Did you mean 'dirichlet'\?"
    ):
        partitions.make("Dirichlt:0.1", y, y, 2, seed=0)


def test_more_clients_than_samples_are_refused():
    few, many = labels(2, 3), labels(2, 30)
    with pytest.raises(PartitionError, match="7 clients and only 6 training images"):
        partitions.make("iid", few, many, 7, seed=0)
    with pytest.raises(PartitionError, match="7 clients and only 6 test images"):
        partitions.make("iid", many, few, 7, seed=0)
    with pytest.raises(PartitionError, match="at least 1, but is 0"):
        partitions.make("iid", many, few, 0, seed=0)


@pytest.mark.parametrize("y", [np.zeros((3, 1), np.int32), np.zeros(3)])
def test_labels_must_be_a_vector_of_integers(y):
    good = labels(1, 3)
    with pytest.raises(PartitionError, match="y_train must be a vector of integer"):
        partitions.make("iid", y, good, 1, seed=0)
    with pytest.raises(PartitionError, match="y_test must be a vector of integer"):
        partitions.make("iid", good, y, 1, seed=0)


def test_test_images_of_unknown_classes_are_refused():
    with pytest.raises(PartitionError, match="training images, but 2, 3 do not"):
        partitions.make("iid", labels(2, 10), labels(4, 10), 2, seed=0)


def part(*positions):
    return np.array(positions, np.int32)


@pytest.mark.parametrize(
    "train,message",
    [
        ((part(0, 1),), "one train part a client, but 'iid' has 1 for 2"),
        ((part(0, 1), part(3, 2)), "must be int32 and sorted, but the train parts"),
        ((part(0), np.array([2])), "must be int32 and sorted"),
        ((part(0), part(5, 20)), r"in \[0, 20\), but .* reach from 0 to 20"),
        ((part(-1), part(5)), r"in \[0, 20\), but .* reach from -1 to 5"),
        ((part(0, 4), part(4, 5)), "No image may occur twice.*position 4 does"),
        ((part(4, 4), part(5)), "No image may occur twice"),
        ((part(4), part()), "with 'iid' the client 1 has none"),
    ],
)
def test_what_a_scheme_returns_is_checked(train, message, monkeypatch):
    made = Partition(train, (part(0), part(1)))
    monkeypatch.setattr(partitions, "get", lambda name: lambda *arguments: made)
    y = labels(2, 10)
    with pytest.raises(PartitionError, match=message):
        partitions.make("iid", y, y, 2, seed=0)


@pytest.mark.parametrize(
    "text,num_clients,num_classes", [("iid", 3, 2), ("dirichlet:1", 60, 40)]
)
def test_the_picture_is_a_png_of_bounded_size(text, num_clients, num_classes, tmp_path):
    y = labels(num_classes, 200)
    made = partitions.make(text, y, y, num_clients, seed=0)
    names = [f"class {label}" for label in range(num_classes)]
    pictures.partition(tmp_path / "partition.png", made, y, names)
    content = (tmp_path / "partition.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = np.frombuffer(content[16:24], ">u4")
    assert 600 <= width <= 1600 and 400 <= height <= 1400


@pytest.mark.parametrize("num,step", [(1, 1), (25, 1), (26, 5), (100, 5), (1000, 50)])
def test_at_most_25_ticks_at_round_places(num, step):
    ticks = pictures._ticks(num)
    assert ticks == range(0, num, step) and len(ticks) <= 25
