"""`fedjax-mrl export` and `fedjax-mrl predict`, as users call them."""

import csv
import errno
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import fedjax_mrl as fm
from fedjax_mrl.cli.main import main
from fedjax_mrl.exporting import folder
from tests.exporting.federations import features
from tests.helpers import ROOT
from tests.networks import SMALL


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of four clients on digits."""
    path = tmp_path_factory.mktemp("runs") / "a"
    words = ["--models", SMALL, "--shared-model", SMALL, "--num-clients", "4"]
    words += ["--algorithm", "fml", "--partition", "iid", "--feature-dim", "8"]
    words += ["--rounds", "1", "--quiet", "--devices", "1", "--out", str(path)]
    assert main(["run", *words]) == 0
    return path


@pytest.fixture(scope="module")
def federation(run):
    return fm.load(run)


@pytest.fixture(scope="module")
def model(run):
    path = run.parent / "model"
    assert main(["export", str(run), "--client", "3", "--out", str(path)]) == 0
    return path


@pytest.fixture
def pictures(federation, tmp_path, monkeypatch):
    """Three digits as image files of the folder that commands are called in."""
    monkeypatch.chdir(tmp_path)
    for place in range(3):
        Image.fromarray(federation.dataset.x_test[place]).save(f"{place}.png")
    return ["0.png", "1.png", "2.png"]


def expected(federation, number=3, **options):
    """Probabilities of the first test images."""
    logits = federation.predict(
        federation.dataset.x_test[:number], client=3, **options
    ).astype(np.float64)
    shares = np.exp(logits)
    return shares / shares.sum(axis=-1, keepdims=True)


def refused(words, capsys, status=2):
    """The one line on stderr of a command that fails and prints nothing."""
    capsys.readouterr()
    assert main(list(map(str, words))) == status
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("fedjax-mrl: ")
    return err


def test_export_tells_what_it_wrote_and_what_to_do_next(
    run, federation, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    words = ["export", str(run), "--client", "1", "--out", "my model"]
    assert main([*words, "--head", "global", "--format", "jax"]) == 0
    out = capsys.readouterr().out
    assert "Client 1, head global, round 1 written to my model:" in out
    assert "model.jax" in out and "model.safetensors" not in out
    assert out.endswith("fedjax-mrl predict 'my model' FILE...\n")
    described = json.loads((tmp_path / "my model" / "model.json").read_text())
    assert described["digest"] == federation.digester()(federation.state)[0]
    assert (described["run"], described["round"]) == (str(run), 1)


def test_predict_prints_file_class_and_probability(model, federation, pictures, capsys):
    capsys.readouterr()
    assert main(["predict", str(model), *pictures]) == 0
    shares = expected(federation)
    lines = [
        f"{name}\t{row.argmax()}\t{row.max():.4f}"
        for name, row in zip(pictures, shares, strict=True)
    ]
    assert capsys.readouterr().out.splitlines() == lines


def test_predict_of_a_run_is_that_of_its_export(run, federation, pictures, capsys):
    capsys.readouterr()
    words = ["predict", str(run), *pictures, "--client", "3", "--head", "global"]
    assert main([*words, "--top", "2"]) == 0
    shares = expected(federation, head="global")
    for line, row in zip(capsys.readouterr().out.splitlines(), shares, strict=True):
        _, first, p, second, q = line.split("\t")
        assert [int(first), int(second)] == list(row.argsort()[::-1][:2])
        np.testing.assert_allclose([float(p), float(q)], np.sort(row)[::-1][:2], 1e-3)


def test_tables_and_json_have_all_that_is_asked_for(
    model, federation, pictures, tmp_path, capsys
):
    shares = expected(federation)
    capsys.readouterr()
    words = ["predict", str(model), *pictures, "--top", "99"]
    assert main([*words, "--csv", "-"]) == 0
    printed = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert len(rows) == 3 * 10
    for row in rows:
        share = shares[int(row["file"][0]), int(row["class"])]
        np.testing.assert_allclose(float(row["probability"]), share, rtol=1e-4)
    assert main([*words, "--csv", "table.csv"]) == 0
    assert (tmp_path / "table.csv").read_text() == printed
    err = refused([*words, "--csv", "table.csv"], capsys)
    assert "table.csv is there already" in err
    assert main([*words, "--csv", "table.csv", "--overwrite"]) == 0
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["file"] for each in objects] == pictures
    assert [len(each["classes"]) for each in objects] == [10] * 3
    assert int(objects[0]["classes"][0]["name"]) == shares[0].argmax()


def test_arrays_are_taken_as_well(model, federation, pictures, capsys):
    x = federation.dataset.x_test[:3]
    np.save("x.npy", x)
    np.savez("x.npz", y=np.arange(3), x=x)
    np.savez("one.npz", x[0])
    capsys.readouterr()
    assert main(["predict", str(model), "x.npy", "x.npz", "one.npz", "2.png"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    names = [f"x.np{kind}[{place}]" for kind in "yz" for place in range(3)]
    assert [line[0] for line in lines] == [*names, "one.npz", "2.png"]
    places = [0, 1, 2, 0, 1, 2, 0, 2]
    best = expected(federation).argmax(axis=-1)
    assert [int(line[1]) for line in lines] == [best[place] for place in places]


def test_a_name_with_a_line_break_stays_on_its_line(model, pictures, capsys):
    os.rename("0.png", "a\n[b]*\t.png")
    capsys.readouterr()
    assert main(["predict", str(model), "a\n[b]*\t.png"]) == 0
    assert capsys.readouterr().out.startswith("a\\n[b]*\\t.png\t")


def test_images_of_another_size_are_refused_unless_they_may_be_resized(
    model, pictures, capsys
):
    Image.open("1.png").resize((40, 50)).save("large.png")
    err = refused(["predict", model, "0.png", "large.png"], capsys)
    assert "large.png must have 32x32 pixels" in err and "has 40x50" in err
    assert main(["predict", str(model), "large.png", "--resize"]) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.png", "There is no file gone.png."),
        ("folder", "folder is a folder; give the image files in it"),
        ("text.png", "text.png must be an image"),
        ("empty.png", "empty.png must be an image"),
        ("cut.png", "cut.png must be an image"),
        ("float.tiff", "float.tiff must be an image"),
        ("text.npy", "text.npy must be a file of arrays"),
        ("objects.npy", "objects.npy must be a file of arrays"),
        ("gone.npz", "Cannot read gone.npz: No such file"),
        ("many.npz", "many.npz must hold one array, or one that is called x; it has"),
        ("small.npy", r"small.npy: x must be images [32, 32, 3]"),
        ("", "must name a file or folder"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(name, message, model, pictures, capsys):
    os.mkdir("folder")
    with open("text.png", "w") as file:
        file.write("no image")
    shutil.copy("text.png", "text.npy")
    open("empty.png", "w").close()
    with open("0.png", "rb") as file, open("cut.png", "wb") as cut:
        cut.write(file.read()[:-60])
    Image.fromarray(np.zeros((32, 32), np.float32)).save("float.tiff")
    np.save("objects.npy", np.array([{}]), allow_pickle=True)
    np.savez("many.npz", a=np.ones(3), b=np.ones(3))
    np.save("small.npy", np.zeros((2, 8, 8, 3), np.uint8))
    assert message in refused(["predict", model, "0.png", name], capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--top", "0"], "--top takes a whole number, at least 1; got '0'."),
        (["--top", "x"], "--top takes a whole number"),
        (["--csv", "-", "--json"], "--csv or --json, not both"),
        (["--client", "1"], "--client is for a run directory"),
        (["--head", "global"], "is the model of client 3, head personal"),
    ],
)
def test_wrong_words_of_predict(words, message, model, pictures, capsys):
    assert message in refused(["predict", model, *pictures, *words], capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "m"], "number from 0 to 3, as client=0 or --client 0; none was"),
        (["--out", "m", "--client", "4"], "got 4"),
        (["--out", "m", "--client", "-1"], "got -1"),
        (["--out", "m", "--client", "two"], "--client takes a client's number"),
        (["--client", "0"], "--out DIR"),
        (
            ["--out", "m", "--client", "0", "--head", "persnal"],
            "Did you mean 'personal'",
        ),
        (["--out", "m", "--client", "0", "--point", "here"], "There is no point"),
        (["--out", "m", "--client", "0", "--format", "onnx"], "There is no format"),
        (["--out", "m", "--client", "0", "--format", "torch"], "made of the five CNNs"),
        (["--out", "gs://b/m", "--client", "0"], "nothing is read from or written to"),
    ],
)
def test_wrong_words_of_export(words, message, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert message in refused(["export", run, *words], capsys)
    assert not any(tmp_path.iterdir())


def test_what_is_no_run_and_no_model(model, run, tmp_path, pictures, capsys):
    err = refused(["export", tmp_path, "--client", 0, "--out", "m"], capsys)
    assert "holds no run" in err
    assert "holds no model.json" in refused(["predict", tmp_path, "0.png"], capsys)
    assert "none was given" in refused(["predict", run, "0.png"], capsys)
    copied = shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(copied / "checkpoints")
    err = refused(["export", copied, "--client", 0, "--out", "m"], capsys)
    assert "There is no checkpoint" in err
    assert not (tmp_path / "m").exists()


def test_a_run_is_exported_while_another_process_writes_it(run, tmp_path, capsys):
    copied = shutil.copytree(run, tmp_path / "copy")
    directory = fm.loading.RunDirectory.open(copied)
    directory.lock()  # as a process that trains
    shutil.copytree(
        copied / "checkpoints" / "1", copied / "checkpoints" / "2.orbax-tmp"
    )
    before = sorted(path.name for path in copied.rglob("*"))
    words = ["export", str(copied), "--client", "0", "--out", str(tmp_path / "m")]
    assert main(words) == 0
    directory.unlock()
    assert sorted(path.name for path in copied.rglob("*")) == before
    assert fm.load_model(tmp_path / "m").description.round == 1


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_nothing_is_written(run, tmp_path):
    words = ["export", str(run), "--client", "0", "--out", str(tmp_path / "model")]
    limited = 'ulimit -f 40; exec "$0" -m fedjax_mrl "$@"'  # blocks of a file
    done = subprocess.run(
        ["sh", "-c", limited, sys.executable, *words],
        cwd=ROOT,
        env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        f"fedjax-mrl: Cannot write the model to {tmp_path / 'model'}: File too large. "
        "Nothing was written.\n"
    )
    assert not any(tmp_path.iterdir())


def test_a_table_that_cannot_be_written_leaves_nothing(
    model, pictures, capsys, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    words = ["predict", model, "0.png", "--csv", "a.csv"]
    err = refused(words, capsys, status=1)
    assert "Cannot write a.csv: No space left on device" in err
    assert not os.path.exists("a.csv")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/folder.csv", "The folder no does not exist; make it, or give another"),
        ("folder", "folder is a folder; give a file, as folder/x.csv."),
        (".", ". is a folder"),
        ("/", "/ is a folder"),
        ("link.csv", "link.csv is there already"),
        ("run/config.json", "run/config.json is a part of the run in "),
        ("run/checkpoints/x.csv", "run/checkpoints/x.csv is a part of the run in "),
        ("gs://b/x.csv", "nothing is read from or written to"),
    ],
)
def test_a_place_for_no_table_is_refused_before_the_model_is_asked(
    name, message, run, model, pictures, capsys, monkeypatch
):
    os.mkdir("folder")
    os.symlink("nowhere", "link.csv")
    os.symlink(run, "run")
    monkeypatch.setattr("fedjax_mrl.cli.predict._model", None)
    words = ["predict", model, "0.png", "--csv", name]
    again = [] if name == "link.csv" else ["--overwrite"]
    assert message in refused([*words, *again], capsys)
    assert sorted(os.listdir()) == [*pictures, "folder", "link.csv", "run"]


def test_a_model_of_features_takes_no_image_files(tmp_path, capsys):
    path = features("standalone").export(tmp_path / "model", 0)
    (tmp_path / "a.png").write_bytes(b"")
    err = refused(["predict", path, tmp_path / "a.png"], capsys)
    assert "takes features [6] of float32 and no image files" in err
    np.save(tmp_path / "x.npy", np.zeros((2, 6)))
    assert main(["predict", str(path), str(tmp_path / "x.npy")]) == 0
    names = {line.split("\t")[1] for line in capsys.readouterr().out.splitlines()}
    assert names <= {"ant", "bee", "cat"}


def test_a_damaged_export_is_refused(model, tmp_path, pictures, capsys):
    copied = shutil.copytree(model, tmp_path / "copy")
    with (copied / folder.PROGRAM).open("r+b") as file:
        file.truncate(1000)
    assert "its checksum differs" in refused(["predict", copied, "0.png"], capsys)
