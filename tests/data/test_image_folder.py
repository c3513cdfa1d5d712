"""Folders of images by class, from the command line and in Python."""

import os
import re
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import fedjax_mrl as fm
from fedjax_mrl import config, datasets
from fedjax_mrl.cli.main import main
from fedjax_mrl.data import image_files
from fedjax_mrl.data.dataset import DatasetError

SMALL = {"models": ("mlp",), "shared_model": "mlp", "rounds": 1}
FLAGS = ["--models", "mlp", "--shared-model", "mlp", "--rounds", "1", "--quiet"]


def shade(value, mode="L", size=(8, 8)):
    """An image of one grey."""
    return Image.new("L", size, value).convert(mode)


def fill(folder, classes=("a b", "größe"), number=5, **options):
    """Writes some images of each class, in shades that say which."""
    for position, label in enumerate(classes):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for k in range(number):
            shade(40 * position + k, **options).save(folder / label / f"é {k}.png")
    return folder


def test_a_folder_of_classes_is_read_in_the_order_of_names(tmp_path):
    fill(tmp_path, ("10", "9", "100"), number=12)
    nested = tmp_path / "9" / "more"
    nested.mkdir()
    shade(99).save(nested / "x.PNG")
    data = datasets.load(f"{tmp_path}/")
    assert data.label_names == ("9", "10", "100")
    assert data.x_train.shape == (37, 8, 8, 1) and not data.notes
    first = [(int(image[0, 0, 0]), y) for image, y in zip(data.x_train, data.y_train)]  # noqa: B905
    # In the order of paths, in which 10 comes first, and "é 10" before "é 2".
    assert first[:4] == [(0, 1), (1, 1), (10, 1), (11, 1)]
    assert first[-2:] == [(49, 0), (99, 0)]
    built = fm.Federation(
        dataset=tmp_path, num_clients=3, partition="iid", data_seed=1, **SMALL
    )
    assert built.dataset.x_test.shape == (7, 8, 8, 1)
    assert built.config.dataset == str(tmp_path)
    mean = built.dataset.x_train.mean() / 255
    assert built.dataset.mean == pytest.approx((mean,))


@pytest.mark.parametrize("test", ["test", "val"])
def test_a_folder_may_have_a_training_and_a_test_part(tmp_path, test):
    fill(tmp_path / "train")
    fill(tmp_path / test, classes=["größe"], number=2)
    data = datasets.load(str(tmp_path))
    assert data.y_train.tolist() == [0] * 5 + [1] * 5
    assert data.y_test.tolist() == [1, 1]
    fill(tmp_path / test, classes=["other"])
    with pytest.raises(DatasetError, match="none of the class 'other'"):
        datasets.load(str(tmp_path))


def test_classes_may_be_called_train_and_test(tmp_path):
    fill(tmp_path, ("train", "test", "car"))
    assert datasets.load(str(tmp_path)).label_names == ("car", "test", "train")


def pixel(tmp_path, image, name="i.png", **options):
    """What is read of one image: height, width, grey, and its first pixel."""
    image.save(tmp_path / name, **options)
    found = image_files.header(tmp_path / name)
    into = np.zeros((found.height, found.width, 1 if found.grey else 3), np.uint8)
    image_files.read(tmp_path / name, into, resize=False)
    return into[0, 0].tolist()


def test_every_colour_mode_is_read_by_one_rule(tmp_path):
    assert pixel(tmp_path, Image.new("1", (4, 4), 1)) == [255]
    assert pixel(tmp_path, shade(7)) == [7]
    assert pixel(tmp_path, shade(7, "P")) == [7, 7, 7]
    assert pixel(tmp_path, shade(7, "RGB"), "i.webp", lossless=True) == [7, 7, 7]
    for value, seen in ((0, 0), (128, 0), (129, 1), (65535, 255)):
        deep = Image.fromarray(np.full((4, 4), value, np.uint16))
        assert pixel(tmp_path, deep) == [seen]
    glass = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    assert pixel(tmp_path, glass) == [255, 255, 255]
    assert pixel(tmp_path, Image.new("LA", (4, 4), (0, 0))) == [255]
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert pixel(tmp_path, half) == [127, 127, 127]
    hole = shade(7, "P")
    assert pixel(tmp_path, hole, transparency=hole.getpixel((0, 0))) == [255] * 3
    ink = pixel(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "i.jpg")
    assert ink[0] > 240 and max(ink[1:]) < 15
    assert pixel(tmp_path, shade(9), "i.bmp") == [9]
    frames = [shade(1, "P"), shade(200, "P")]
    moving = {"save_all": True, "append_images": frames[1:]}
    assert pixel(tmp_path, frames[0], "i.gif", **moving) == [1, 1, 1]


def test_an_image_is_turned_as_viewers_turn_it(tmp_path):
    image = Image.new("L", (8, 16))
    image.paste(255, (0, 0, 8, 8))  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    image.save(tmp_path / "i.png", exif=exif)
    assert image_files.header(tmp_path / "i.png")[:2] == (8, 16)
    into = np.zeros((8, 16, 1), np.uint8)
    image_files.read(tmp_path / "i.png", into, resize=False)
    assert into[:, 8:].min() == 255 and into[:, :8].max() == 0


def test_one_colour_image_makes_all_rgb(tmp_path):
    fill(tmp_path)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "größe" / "ü.png")
    data = datasets.load(str(tmp_path))
    assert data.x_train.shape == (11, 8, 8, 3)
    assert data.x_train[-1, 0, 0].tolist() == [1, 2, 3]
    assert data.x_train[1, 0, 0].tolist() == [1, 1, 1]


def test_images_of_several_sizes_need_one_said(tmp_path):
    fill(tmp_path)
    shade(3, size=(9, 20)).save(tmp_path / "größe" / "ü.png")
    with pytest.raises(DatasetError, match=r"is 8 x 8 and .*ü.png 20 x 9 \(height"):
        datasets.load(str(tmp_path))
    data = datasets.load(str(tmp_path), image_size=6)
    assert data.x_train.shape == (11, 6, 6, 1)
    assert data.x_train[-1, :, :, 0].tolist() == [[3] * 6] * 6
    built = fm.Federation(dataset=str(tmp_path), image_size=6, partition="iid",
                          num_clients=2, **SMALL)  # fmt: skip
    again = built.with_settings(rounds=2)  # the same data, which have that size
    assert again.dataset.x_train.shape[1:] == (6, 6, 1)
    with pytest.raises(config.ConfigError, match="--image-size 5 is for a folder"):
        fm.Federation(dataset=data, image_size=5, **SMALL)


def test_what_is_no_image_is_told_and_litter_is_not(tmp_path):
    fill(tmp_path)
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / "a b" / name).write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    assert datasets.load(str(tmp_path)).notes == ()
    (tmp_path / "labels.csv").write_text("x")
    (tmp_path / "a b" / "i.tif").write_text("x")
    os.mkfifo(tmp_path / "a b" / "pipe.png")  # would never end
    (note,) = datasets.load(str(tmp_path)).notes
    assert ": 3 in " in note and "labels.csv" in note


def test_links_are_followed_once(tmp_path):
    fill(tmp_path / "real", ["a", "b"])
    other = tmp_path / "links"
    other.mkdir()
    for name in ("a", "b"):
        (other / name).symlink_to(tmp_path / "real" / name)
    (tmp_path / "real" / "a" / "loop").symlink_to(tmp_path / "real" / "a")
    (tmp_path / "real" / "b" / "self").symlink_to("self")
    data = datasets.load(str(other))
    assert data.y_train.tolist() == [0] * 5 + [1] * 5
    (other / "a" / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(DatasetError, match=r"a/gone.png must be an image"):
        datasets.load(str(other))


def bomb(path, side):
    """A small file that claims an image of so many pixels."""
    chunk = lambda name, data: (
        struct.pack(">I", len(data)) + name + data
        + struct.pack(">I", zlib.crc32(name + data))
    )  # fmt: skip
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: (p / "a b" / "x.png").write_bytes(b"no"), r"x.png must be an image"),
        (
            lambda p: (p / "a b" / "x.png").write_bytes(
                (p / "a b" / "é 0.png").read_bytes()[:-30]
            ),
            r"x.png must be an image",
        ),
        (lambda p: bomb(p / "a b" / "x.png", 30000), "at most 67,108,864 pixels"),
        (lambda p: bomb(p / "a b" / "x.png", 9000), "x.png claims more of 9000 x 9000"),
        (lambda p: (p / "a b" / "x\n.png").write_bytes(b"no"), r"x\\n.png' must be an"),
        (lambda p: (p / "empty").mkdir(), "taken for a class, but .*empty holds no"),
        (lambda p: [f.unlink() for f in p.rglob("*.png")], "holds no image"),
        (lambda p: shutil.rmtree(p), "but .* is not there"),
        (
            lambda p: [shutil.rmtree(f) for f in p.iterdir()],
            "has no folder in it",
        ),
        (lambda p: (p / "größe").rename(p / "a b" / "g"), "at least two classes"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_sentence(
    tmp_path, monkeypatch, capsys, change, words
):
    monkeypatch.chdir(tmp_path)
    folder = fill(tmp_path / "my photos")
    change(folder)
    assert main(["run", "--dataset", str(folder), *FLAGS, "--out", "a"]) == 2
    error = capsys.readouterr().err
    assert re.search(words, error) and error.count("\n") == 1
    assert "Traceback" not in error and not (tmp_path / "a").exists()


def test_too_many_pixels_for_this_machine_are_refused(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setattr(os, "sysconf", lambda name: 10)
    with pytest.raises(DatasetError, match=r"10 images of 8 x 8 pixels take 0.0 G"):
        datasets.load(str(tmp_path))


@pytest.mark.slow
def test_the_command_line_trains_on_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "my photos", number=10, size=(16, 16))
    flags = ["--dataset", "my photos", *FLAGS, "--num-clients", "2"]
    flags += ["--partition", "iid"]
    assert main(["run", *flags]) == 0
    run = tmp_path / "runs" / "fedmrl-my photos-0"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["resume", str(run), "--rounds", "2", "--quiet"]) == 0
    assert main(["verify", str(run)]) == 0
    loaded = fm.load(run)
    image = np.zeros((16, 16), np.uint8)
    assert loaded.predict(image, client=1).shape == (2,)
    Image.new("L", (16, 16), 9).save(tmp_path / "my photos" / "a b" / "é 0.png")
    assert main(["verify", str(run)]) == 2
    assert "not those that" in capsys.readouterr().err


def test_a_name_of_this_library_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "digits")
    (tmp_path / "photos").mkdir()
    assert fm.RunConfig(dataset="digits").dataset == "digits"
    assert fm.RunConfig(dataset="./digits").dataset == str(tmp_path / "digits")
    assert fm.RunConfig(dataset="photos").dataset == str(tmp_path / "photos")
    assert fm.RunConfig(dataset="photos/").short_name == "fedmrl-photos"
    with pytest.raises(ValueError, match=r"no dataset 'photo'.*no folder of that nam"):
        datasets.load("photo")
    with pytest.raises(DatasetError, match="--image-size is for a folder of images"):
        datasets.load("digits", image_size=8)
    with pytest.raises(config.ConfigError, match="nothing is read from"):
        fm.RunConfig(dataset="gs://bucket/photos")
