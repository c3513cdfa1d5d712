"""Folders in LEAF's layout, from the command line and in Python."""

import json
import re

import numpy as np
import pytest

import fedjax_mrl as fm
from fedjax_mrl import datasets
from fedjax_mrl.cli.main import main
from fedjax_mrl.data import leaf
from fedjax_mrl.data.dataset import DatasetError

FLAGS = ["--models", "mlp", "--shared-model", "mlp", "--rounds", "1"]
DRAW = np.random.default_rng(0)
PIXELS = DRAW.integers(0, 256, (60, 64)).astype(np.uint8)


def write(folder, **users):
    """Writes users with their (x, y), two in a file."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(users)
    for start in range(0, len(names), 2):
        some = names[start : start + 2]
        data = {name: {"x": users[name][0], "y": users[name][1]} for name in some}
        sizes = [len(users[name][1]) for name in some]
        content = {"users": some, "num_samples": sizes, "user_data": data}
        (folder / f"all_{start}.json").write_text(json.dumps(content))


def images(rows):
    return (PIXELS[rows] / 255).tolist(), [row % 3 for row in rows]


@pytest.fixture
def femnist(tmp_path):
    """Three users with images of 8 x 8 in both parts."""
    folder = tmp_path / "femnist"
    train = {"f2_1": range(9), "f1_7": range(9, 30), "f10": range(30, 42)}
    test = {"f1_7": range(42, 48), "f10": range(48, 60)}
    for part, users in (("train", train), ("test", test)):
        write(folder / part, **{name: images(rows) for name, rows in users.items()})
    return folder


@pytest.mark.slow
def test_pixels_come_back_and_users_are_clients(femnist):
    built = fm.Federation(
        dataset=str(femnist), partition="natural", num_clients=3,
        models=("mlp",), shared_model="mlp", rounds=1,
    )  # fmt: skip
    data = built.dataset
    assert data.kind == "images" and data.label_names == ("0", "1", "2")
    assert built.client_names == ("f10", "f1_7", "f2_1")
    order = [*range(30, 42), *range(9, 30), *range(9)]
    np.testing.assert_array_equal(data.x_train.reshape(-1, 64), PIXELS[order])
    assert data.y_train.tolist() == [row % 3 for row in order]
    assert [part.size for part in built.partition.test] == [12, 6, 0]
    assert built.fit(progress=False).rows("rounds")


@pytest.mark.slow
def test_the_command_line_trains_on_it(femnist, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    outer = tmp_path / "leaf"
    outer.mkdir()
    femnist.rename(outer / "data")  # as LEAF has it
    flags = ["--dataset", "leaf", "--partition", "natural", "--num-clients", "3"]
    assert main(["run", *flags, *FLAGS, "--limit-train", "20", "--out", "a"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["resume", "a", "--rounds", "2", "--quiet"]) == 0
    assert main(["verify", "a"]) == 0
    assert fm.load("a").predict(PIXELS[0].reshape(8, 8), client=0).shape == (3,)


def test_other_numbers_are_features_and_a_test_part_is_drawn(tmp_path):
    x, y = images(range(20))
    x[3][5] = 0.1234  # no pixel
    write(tmp_path / "train", a=(x, y), b=images(range(20, 40)))
    data = datasets.load(str(tmp_path))
    assert data.kind == "features" and data.x_train.shape == (40, 64)
    np.testing.assert_array_equal(data.x_train[20:], np.float32(PIXELS[20:40] / 255))
    built = fm.Federation(
        dataset=str(tmp_path), partition="natural", num_clients=2,
        models=("mlp",), shared_model="mlp", rounds=1,
    )  # fmt: skip
    assert [part.size for part in built.partition.test] == [4, 4]


def test_texts_are_tokens_by_the_table_of_characters(tmp_path):
    write(tmp_path / "train", HAMLET=(["To be", "or, \n"], ["!", "z"]))
    write(tmp_path / "test", HAMLET=(["}    "], ["\n"]))
    data = datasets.load(str(tmp_path))
    table = leaf.CHARACTERS
    assert len(table) == data.num_classes == 80
    assert data.x_train.dtype == np.int32
    assert "".join(table[token] for token in data.x_train[0]) == "To be"
    assert [table[y] for y in (*data.y_train, *data.y_test)] == ["!", "z", "\n"]
    assert data.label_names[:3] == ("newline", "space", "!")
    write(tmp_path / "train", HAMLET=(["Tö be", "or, n"], ["b", "z"]))
    write(tmp_path / "test", HAMLET=(["n    "], ["ö"]))
    data = datasets.load(str(tmp_path))  # others: those that occur
    assert data.label_names == ("space", *",Tbenorzö")
    assert data.x_train[0].tolist() == [2, 9, 0, 3, 4]
    assert data.y_test.tolist() == [9]


TWO = ([[0.5, 2.0]] * 2, [0, 1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must hold JSON, but is empty"),
        ('{"users": ["a"], "user_data": {}}', "but has not for 'a', whom users names"),
        (
            '{"users": ["a"], "user_data": {"a": {"x": {}, "y": []}}}',
            "x of the user 'a' in .*x.json must be a list, but is dict",
        ),
        (
            '{"users": ["a"], "user_data": {"a": {"x": []}}}',
            "y of the user 'a' in .*x.json must be a list, but is missing",
        ),
        (
            '{"users": ["a"], "user_data": {"a": {"x": [[1.5]], "y": [1e30]}}}',
            r"of the user 'a' must be the numbers of classes from 0, but holds 1e\+30",
        ),
        (
            '{"users": ["a"], "user_data": {"a": {"x": [[1.5]], "y": [0]}}}',
            "at least two classes, but all y in .* are 0",
        ),
        (
            '{"users": ["a", "a"], "user_data": {"a": {"x": [[1.5]], "y": [1]}}}',
            "those of 'a' are twice in .*x.json",
        ),
    ],
)
def test_a_message_names_file_and_user(tmp_path, text, words):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "x.json").write_text(text)
    with pytest.raises(DatasetError, match=words):
        datasets.load(str(tmp_path))


def test_folders_without_json_say_where_it_belongs(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
    with pytest.raises(DatasetError, match="layout train must hold its"):
        datasets.load(str(tmp_path))
    write(tmp_path / "test", a=TWO)
    with pytest.raises(DatasetError, match="train must hold LEAF's files for training"):
        datasets.load(str(tmp_path))


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        ({"a": TWO}, {"b": TWO}, "1 in .*/test have none in .*/train, as 'b'"),
        (
            {"a": TWO, "b": ([[1.5]], [0])},
            {},
            "2 numbers and .*'b' in train 1",
        ),
        (
            {"a": TWO, "b": (["xy"], ["z"])},
            {},
            "2 numbers and .*'b' in train 2",
        ),
        ({"a": ([["1", "text"]], [0])}, {}, "Sent140"),
        ({"a": (["face.jpg"], [0])}, {}, "one length and a character each as y"),
        ({"a": (["ab", "abc"], ["d", "e"])}, {}, "one length and a character each"),
        ({"a": ([[1.5], [1.5, 2]], [0, 1])}, {}, "must be numbers, one list an exam"),
        ({"a": ([[1.5], [2.5]], [0, 0.5])}, {}, "must be numbers, one list an exam"),
        (
            {"a": ([[1.5], [2.5]], [1, -1])},
            {},
            "user 'a' must be the numbers of classes .* holds -1",
        ),
        (
            {"a": ([[1.5], [float("nan")]], [0, 1])},
            {},
            "of the user 'a' must be finite numb",
        ),
        (
            {"a": (TWO[0], [0])},
            {},
            "as many x as y, but has 2 x and 1 y",
        ),
        ({"a": ([], [])}, {}, "must hold examples, but holds none"),
    ],
)
def test_users_that_cannot_be_taken_are_one_sentence(tmp_path, train, test, words):
    write(tmp_path / "train", **train)
    write(tmp_path / "test", **test)
    with pytest.raises(DatasetError, match=words) as raised:
        datasets.load(str(tmp_path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 100000, "[]", '{"users": 3}', '{"users": [], "user_data": {}}',
     '{"users": ["a"], "user_data": []}', '{"users": ["a"], "user_data": {"a": 1}}',
     '{"users": ["a"], "user_data": {"a": {"x": [1], "y": [1]}}}', "\xff"],
)  # fmt: skip
def test_files_of_another_form_are_one_sentence(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "l" / "train").mkdir(parents=True)
    (tmp_path / "l" / "train" / "x.json").write_bytes(text.encode("latin-1"))
    assert main(["run", "--dataset", "l", *FLAGS, "--out", "a"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(r"x\.json", error)
    assert not (tmp_path / "a").exists()


def test_a_user_is_in_one_file_only(femnist):
    (femnist / "train" / "more.json").write_bytes(
        (femnist / "train" / "all_0.json").read_bytes()
    )
    with pytest.raises(DatasetError, match=r"f2_1' are in .*0\.json and .*more"):
        datasets.load(str(femnist))
    with pytest.raises(DatasetError, match="--image-size is for a folder of image fi"):
        datasets.load(str(femnist), image_size=8)
