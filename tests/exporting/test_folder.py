"""A model is written as a whole or not at all, and damage to it is noticed."""

import dataclasses
import errno
import json
import os
import re

import jax
import jax.export
import pytest

import fedjax_mrl as fm
from fedjax_mrl.exporting import folder
from fedjax_mrl.exporting.error import ExportError
from tests.exporting.federations import features


@pytest.fixture(scope="module")
def federation():
    return features("standalone")


def contents(path):
    """Every file below a folder, hidden ones too."""
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


def test_a_model_is_replaced_only_when_asked_and_other_files_stay(federation, tmp_path):
    path = federation.export(tmp_path / "model", 0)
    (path / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(ExportError, match="holds an exported model already"):
        federation.export(path, 1)
    assert contents(tmp_path) == before
    federation.export(path, 1, formats="jax", overwrite=True)
    files = {"notes.txt", folder.DESCRIPTION, folder.PROGRAM}
    assert set(contents(tmp_path)) == {f"model/{name}" for name in files}
    assert fm.load_model(path).description.client == 1


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_files_is_left_alone(overwrite, federation, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(ExportError, match=r"holds other files \(cat.png\)"):
        federation.export(tmp_path / "photos", 0, overwrite=overwrite)
    with pytest.raises(ExportError, match="is a file"):
        federation.export(tmp_path / "photos" / "cat.png", 0, overwrite=overwrite)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["a[b]*?", "späße", "with space", "-", "new\nline"])
def test_a_folder_may_have_any_name(name, federation, tmp_path):
    path = federation.export(tmp_path / "deeper" / name, 0)
    assert os.listdir(tmp_path / "deeper") == [name]
    assert fm.load_model(path).description.client == 0


def test_an_empty_folder_and_a_link_to_one_are_used(federation, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    federation.export(tmp_path / "link", 0)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / folder.PROGRAM).exists()


@pytest.mark.parametrize("old", [False, True])
def test_a_full_disk_leaves_all_as_it_was(old, federation, tmp_path, monkeypatch):
    if old:
        federation.export(tmp_path / "model", 0)
    before = contents(tmp_path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        federation.export(tmp_path / "model", 1, overwrite=True)
    with pytest.raises(OSError, match="No space left"):
        federation.export(tmp_path / "new" / "folders" / "model", 1)
    assert contents(tmp_path) == before
    assert os.listdir(tmp_path) == ["model"] * old


def test_a_replacement_that_fails_half_way_brings_the_old_model_back(
    federation, tmp_path, monkeypatch
):
    federation.export(tmp_path / "model", 0)
    before = contents(tmp_path)
    rename, calls = os.rename, []

    def second_fails(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(errno.EACCES, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(OSError, match="Permission denied"):
        federation.export(tmp_path / "model", 1, overwrite=True)
    assert contents(tmp_path) == before


def damaged(path, name):
    file = path / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


def rewritten(path, lost=None, **values):
    file = path / folder.DESCRIPTION
    found = json.loads(file.read_text()) | values
    found.pop(lost, None)
    file.write_text(json.dumps(found))


HARM = {
    "a changed program": (lambda p: damaged(p, folder.PROGRAM), "checksum differs"),
    "a lost program": (lambda p: (p / folder.PROGRAM).unlink(), "Cannot read .*jax"),
    "no JSON": (lambda p: (p / folder.DESCRIPTION).write_text("{"), "is no JSON"),
    "no text": (lambda p: (p / folder.DESCRIPTION).write_bytes(b"\xff"), "is no JSON"),
    "another JSON": (lambda p: (p / folder.DESCRIPTION).write_text("[]"), "not desc"),
    "a newer format": (lambda p: rewritten(p, format_version=2), "this version of"),
    "a lost value": (lambda p: rewritten(p, lost="head"), "lacks head"),
    "a wrong value": (lambda p: rewritten(p, shape=3), "do not fit together"),
    "no classes": (lambda p: rewritten(p, classes=[]), "do not fit together"),
    "a lost class": (lambda p: rewritten(p, classes=["a", "b"]), "does not fit model"),
    "another size": (lambda p: rewritten(p, shape=[7]), "does not fit model"),
    "another type": (lambda p: rewritten(p, dtype="int32"), "do not fit together"),
    "another kind": (lambda p: rewritten(p, kind="tokens"), "do not fit together"),
    "another number": (
        lambda p: rewritten(p, kind="tokens", dtype="int32"),
        "does not fit model",
    ),
    "numbered classes": (lambda p: rewritten(p, classes=[0] * 3), "do not fit"),
    "nameless classes": (lambda p: rewritten(p, classes=[None] * 3), "do not fit"),
    "lost files": (lambda p: rewritten(p, files={}), "exported without model.jax"),
    "no files": (lambda p: rewritten(p, files=None), "a checksum each"),
    "listed files": (lambda p: rewritten(p, files=[folder.PROGRAM]), "a checksum each"),
    "no checksum": (
        lambda p: rewritten(p, files={folder.PROGRAM: "a"}),
        "a checksum each",
    ),
    "nested JSON": (
        lambda p: (p / folder.DESCRIPTION).write_text("[" * 10**5),
        "is no JSON",
    ),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_model_is_refused(harm, federation, tmp_path):
    path = federation.export(tmp_path / "model", 0)
    change, message = HARM[harm]
    change(path)
    with pytest.raises(ExportError, match=message):
        fm.load_model(path)


def test_a_model_of_an_earlier_version_is_read(federation, tmp_path):
    path = federation.export(tmp_path / "model", 0)
    assert fm.load_model(path).description.newcomer is None
    rewritten(path, lost="newcomer")  # which versions up to 0.2.0 did not write
    assert fm.load_model(path).description.newcomer is None


def test_a_program_that_jax_cannot_read_is_refused(federation, tmp_path):
    path = federation.export(tmp_path / "model", 0)
    found = folder.read(path)[1]
    folder.write(tmp_path / "other", found, {folder.PROGRAM: b"not a program at all"})
    with pytest.raises(ExportError, match="cannot be read by jax"):
        fm.load_model(tmp_path / "other")


def test_a_program_of_a_later_jax_is_refused_with_both_versions(federation, tmp_path):
    path = federation.export(tmp_path / "model", 0)
    found = folder.read(path)[1]
    program = jax.export.deserialize(bytearray((path / folder.PROGRAM).read_bytes()))
    later = dataclasses.replace(program, mlir_module_serialized=b"ML\xefRlater")
    found["versions"] = {"jax": "99.0.0"}
    folder.write(tmp_path / "other", found, {folder.PROGRAM: bytes(later.serialize())})
    versions = f"exported with jax 99.0.0, and this is {re.escape(jax.__version__)}"
    with pytest.raises(ExportError, match=versions):
        fm.load_model(tmp_path / "other")


def test_what_is_no_model_is_refused_and_a_near_one_named(federation, tmp_path):
    with pytest.raises(ExportError, match="is no folder"):
        fm.load_model(tmp_path / "nothing")
    path = federation.export(tmp_path / "model", 0)
    with pytest.raises(
        ExportError, match=r"part of a model; give the folder .*model\."
    ):
        fm.load_model(path / "model.jax")
    with pytest.raises(ExportError, match=r"holds no model.json.* Is it .*/model\?"):
        fm.load_model(tmp_path)


def test_a_model_without_a_program_says_so(federation, tmp_path):
    path = federation.export(tmp_path / "model", 0, formats=["safetensors"])
    with pytest.raises(ExportError, match="exported without model"):
        fm.load_model(path)
