"""The user's own arrays: which forms are taken as they are meant, and which refused."""

import numpy as np
import pytest

import fedjax_mrl as fm
from fedjax_mrl.data.dataset import Arrays, DatasetError, DatasetSpec, build, checksum

N, M = 24, 12


def given(part="all"):
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (N, 8, 8, 1)).astype(np.uint8)
    return {"x": x, "y": np.arange(N) % 3, "x_test": x[:M], "y_test": np.arange(M) % 3}


def made(**changes):
    found = given()
    options = {}
    for name, change in changes.items():
        if name in found:
            found[name] = change(found[name])
        else:
            options[name] = change
    return fm.arrays(**found, **options)


def both(change):
    return {"y": change, "y_test": change}


def images(change):
    return {"x": change, "x_test": change}


@pytest.mark.parametrize(
    "changes",
    [
        both(np.ndarray.tolist),
        both(lambda y: y.astype(np.uint8)),
        both(lambda y: y.astype(">i8")),
        both(lambda y: y[:, None]),
        images(lambda x: x[..., 0]),
        images(np.ndarray.tolist),
        images(lambda x: x.astype(np.int64)),
        images(lambda x: np.asfortranarray(x)),
        {"label_names": ("0", "1", "2")},
        {"label_names": np.array(["0", "1", "2"])},
    ],
)
def test_forms_whose_meaning_is_certain_are_one_data_set(changes):
    found = made(**changes)
    assert checksum(found) == checksum(made())
    assert found.label_names == ("0", "1", "2") and found.y_train.dtype == np.int32
    assert found.x_train.flags.c_contiguous


def test_two_classes_may_be_false_and_true():
    found = made(**both(lambda y: y > 0))
    assert found.num_classes == 2 and found.y_train[:4].tolist() == [0, 1, 1, 0]


def test_whole_numbers_of_any_library_are_labels():
    given = np.array([*range(N)], object) % 3
    found = made(y=lambda _: given, y_test=lambda y: np.ma.masked_array(y))
    assert found.y_train.dtype == np.int32 and found.y_train[:4].tolist() == [
        0,
        1,
        2,
        0,
    ]
    assert found.y_test[:4].tolist() == [0, 1, 2, 0]


def test_mean_and_deviation_are_those_of_the_training_images():
    x = np.random.default_rng(1).integers(0, 256, (N, 6, 6, 2)).astype(np.uint8)
    x[..., 1] = 51
    found = made(x=lambda _: x, x_test=lambda _: x[:M] // 2)
    np.testing.assert_allclose(found.mean, (x / 255).mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(found.std, ((x[..., 0] / 255).std(), 1.0))  # constant
    assert made(mean=0.25, std=[0.5]).mean == (0.25,)
    assert made(std=0.5).std == (0.5,)


WRONG = {
    "floats": (images(lambda x: x / 255), r"uint8.*float64.*np\.round\(255 \* x_train"),
    "large floats": (images(lambda x: x / 1.5), r"= np\.round\(x_train\)\.astype"),
    "normalised": (images(lambda x: x / 127.5 - 1), "-1 to 1; undo its normalisation"),
    "NaN": (images(lambda x: x * np.nan), "not finite"),
    "large": (images(lambda x: x.astype(int) + 9), "from 9 to 26"),
    "mask": (images(lambda x: x > 99), r"255 \* x_train\.astype"),
    "words": (images(lambda x: x.astype(str)), "pixels from 0 to 255"),
    "flat": (images(lambda x: x.reshape(len(x), -1)), r"\[n, H, W, C\].*\[24, 64\]"),
    "none": (images(lambda x: x[:0]) | both(lambda y: y[:0]), "at least one image"),
    "no tests": (
        {"x_test": lambda x: x[:0], "y_test": lambda y: y[:0]},
        "x_test must hold at least one image",
    ),
    "channels first": (
        images(lambda x: np.repeat(x, 3, axis=-1).transpose(0, 3, 1, 2)),
        r"channels first.*x_train\.transpose\(0, 2, 3, 1\)",
    ),
    "another size": ({"x_test": lambda x: x[:, :6]}, r"\[8, 8, 1\], but.*\[6, 8, 1\]"),
    "ragged": ({"x": lambda x: [x[0], x[1][:4]]}, "NumPy cannot make one"),
    "from 1": (both(lambda y: y + 1), "spans 1..3 and lacks 0.*y = y - 1"),
    "from 1, named": (
        both(lambda y: y + 1) | {"label_names": ("a", "b", "c")},
        r"must lie in 0\.\.2.*spans 1\.\.3.*y_train = y_train - 1",
    ),
    "negative": (both(lambda y: y - 1), r"spans -1\.\.1; .*y = y \+ 1, y_test = y_"),
    "negative, named": (
        both(lambda y: y - 1) | {"label_names": ("a", "b", "c")},
        r"spans -1\.\.1; .*y_train = y_train \+ 1\.$",
    ),
    "None": ({"y": lambda y: None}, "y_train must be integers.*it is None"),
    "complex": (both(lambda y: y * 1j), "is complex128.*, complex numbers; give"),
    "dates": (both(lambda y: y.astype("M8[D]")), "dates or times; give the number"),
    "masked": (
        {"y": lambda y: np.ma.masked_equal(y, 2)},
        "y_train must be known.*has 8 masked values",
    ),
    "masked images": (
        {"x": lambda x: np.ma.masked_array(x, x == x.max())},
        "x_train must be known",
    ),
    "text objects": (both(lambda y: y.astype(str).astype(object)), "which is text; "),
    "mixed objects": (
        {"y": lambda y: np.array([None, "a", *y[2:]], object)},
        "object.* of NoneType, int64, str; give the number of a class",
    ),
    "huge objects": (
        {"y": lambda y: np.array([2**70, *y[1:]], object)},
        "must be integers",
    ),
    "gap": (both(lambda y: 2 * y), "lacks 1, 3;"),
    "huge": (both(lambda y: y + 2**40), "number the classes from 0"),
    "one-hot": (both(lambda y: np.eye(3)[y]), r"y_train\.argmax\(axis=1\)"),
    "text": (both(lambda y: y.astype(str)), r"is text; .*np\.unique"),
    "whole floats": (
        both(lambda y: y * 1.0),
        r"y_train = y_train\.astype\(np\.int32\)",
    ),
    "floats as labels": (both(lambda y: y * 0.5), "are no classes"),
    "fewer": ({"y": lambda y: y[:-1]}, r"integers \[24\].*\[23\]; give labels and"),
    "more": ({"y_test": lambda y: np.r_[y, 1]}, r"y_test must be integers \[12\]"),
    "few names": ({"label_names": ("a", "b")}, "2 names and the labels go up to 2"),
    "a new test class": ({"y_test": lambda y: y + 1}, "the class 3 has none"),
    "one text": ({"label_names": "abc"}, "must be a list of names"),
    "one name": ({"label_names": np.array("abc")}, "must be a list of names"),
    "one class": (both(lambda y: y * 0), "are of the class 0; give"),
    "two means": ({"mean": (0.5, 0.5)}, "mean must have one value for each of the 1"),
    "mean of pixels": ({"mean": (127.0,)}, "divide it by 255"),
    "no deviation": ({"std": (0.0,)}, "std must be positive"),
    "no number": ({"std": ("x",)}, "std must be numbers"),
    "uint8, raw": ({"augmentation": "raw"}, "must be float32 to be used as it is"),
    "raw NaN": (
        images(lambda x: np.where(x == x[3, 0, 0, 0], np.nan, 0.0))
        | {"augmentation": "raw"},
        "must be finite, but 6 of them hold NaN",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_everything_else_is_refused_with_what_to_do(name):
    changes, words = WRONG[name]
    with pytest.raises(DatasetError, match=words) as caught:
        made(**changes)
    assert "\n" not in str(caught.value)


def federation(data, **options):
    return fm.Federation(
        dataset=data,
        algorithm="standalone",
        models=("mlp",),
        shared_model="mlp",
        feature_dim=8,
        num_clients=2,
        partition="iid",
        rounds=1,
        **options,
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d._replace(y_train=d.y_train + 1), r"must lie in 0\.\.2"),
        (lambda d: d._replace(y_train=d.y_train[:-3]), r"integers \[24\]"),
        (lambda d: d._replace(x_train=d.x_train / 255), "but is float64"),
        (lambda d: d._replace(label_names=("a", "b")), "name all classes"),
        (lambda d: d._replace(augmentation="fli"), "no augmentation 'fli'"),
        (lambda d: d._asdict(), "a name or a Dataset.*got dict"),
        (lambda d: (d.x_train, d.y_train), "got tuple"),
    ],
)
def test_a_hand_made_data_set_is_checked_when_the_federation_is_built(change, words):
    with pytest.raises(ValueError, match=words):
        federation(change(made()))


def test_a_hand_made_data_set_may_hold_lists_and_columns():
    data = made()
    loose = data._replace(y_train=data.y_train.tolist(), y_test=data.y_test[:, None])
    one, other = federation(data), federation(loose)
    assert one.dataset.sha256() == other.dataset.sha256()
    assert one.config.dataset == "arrays"


@pytest.mark.slow
def test_prepared_floats_train_as_the_same_normalised_pixels():
    data = made(mean=0.5, std=0.25)
    ready = lambda x: ((x / 255 - 0.5) / 0.25).astype(np.float32)
    raw = made(**images(ready), augmentation="raw")
    losses = []
    for one in (federation(data), federation(raw)):
        (result,) = one.rounds()
        losses.append(result.played.metrics["total"])
        assert one.flops().min() > 0
    np.testing.assert_allclose(*losses, rtol=1e-5)
    with pytest.raises(DatasetError, match="undo its normalisation"):
        federation(raw, augmentation="none")


def test_files_are_refused_in_the_words_of_arrays():
    spec = DatasetSpec("own", "", (8, 8, 1), ("a", "b", "c"), (0.5,), (0.5,), N, M)
    found = given()
    for name, fields in (("one-hot", "y"), ("text", "y"), ("channels first", "x")):
        changes, words = WRONG[name]
        broken = {k: changes[k](v) if k in changes else v for k, v in found.items()}
        arrays = Arrays(*broken.values())
        with pytest.raises(DatasetError, match=f"{fields}_train of here.*{words}"):
            build(spec, arrays, "here")
