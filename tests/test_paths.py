"""Paths as users write them: what works, what is refused, by every option."""

import argparse
import errno
import fcntl
import os
import pathlib

import numpy as np
import pytest

import fedjax_mrl as fm
from fedjax_mrl import datasets, partitions, paths
from fedjax_mrl.cli import command
from fedjax_mrl.cli.main import commands, main
from fedjax_mrl.runs.directory import RunDirectory, RunDirectoryError

RUN = ["--algorithm", "standalone", "--models", "mlp", "--shared-model", "mlp"]
RUN += ["--num-clients", "4", "--partition", "iid", "--feature-dim", "8", "--quiet"]
RUN += ["--rounds", "0", "--devices", "1"]  # a checkpoint there is nevertheless
# Options that speak of files in their help and take none.
NO_PATHS = {"overwrite", "download", "partition", "dataset", "tune", "client_store"}
NO_PATHS |= {"strategies", "algorithm", "models", "writer"}  # these name code in files
NO_PATHS |= {"reproduction"}  # a name, or a path that is read as --config's is
OTHERS = {"predict": ["x", "y"], "data": ["import", "digits"]}  # what a command needs
OTHERS |= {"compare": ["--algorithms", "standalone"]}
OTHERS |= dict.fromkeys(("resume", "verify", "evaluate", "personalize", "export"), "x")


def options():
    """Every option and argument of every command: (command, action)."""
    for name, one in commands().items():
        parser = command.Parser(prog=name)
        one.configure(parser)
        yield from ((name, action) for action in parser._actions)


def test_every_option_that_speaks_of_files_is_read_as_a_path():
    found = set()
    for name, action in options():
        words = f"{action.help or ''} {action.metavar or ''}".lower()
        speaks = any(w in words for w in ("folder", "file", "director", "where the"))
        if action.metavar in command.PATHS:
            found.add((name, action.dest))
        elif speaks and not isinstance(action, argparse._HelpAction):
            assert action.dest in NO_PATHS, (name, action.dest)
    expected = {"run": "out config data_dir", "compare": "out config data_dir"}
    expected |= {"plan": "out config data_dir", "resume": "run config data_dir"}
    expected |= {"evaluate": "run data_dir", "verify": "run data_dir"}
    expected |= {"data": "source data_dir", "doctor": "data_dir"}
    expected |= {"export": "run out data_dir", "predict": "model images csv data_dir"}
    expected |= {"personalize": "run data out data_dir"}
    expected |= {"reproduce": "out data_dir", "list": "out"}
    for name, dests in expected.items():
        assert {(name, dest) for dest in dests.split()} <= found


@pytest.mark.parametrize("value", ["gs://bucket/x", "", "~nobody-of-that-name/x"])
def test_every_path_option_refuses_what_is_no_path_here(
    tmp_path, capsys, value, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name, action in options():
        if action.metavar not in command.PATHS:
            continue
        argv = [name]
        if action.option_strings:
            argv += [f"{action.option_strings[0]}={value}"]
            argv += OTHERS.get(name, [])
        else:
            argv += ["x"] * (action.metavar == "IMAGE") + [value]
        assert main(argv) == 2, argv
        told = capsys.readouterr().err
        subject = (action.option_strings or [action.metavar])[0]
        assert told.startswith(f"fedjax-mrl: {subject} "), told
        assert told.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "address",
    ["gs://b/x", "s3://b/x", "hdfs://h/x", "file:///tmp/x", "gs:/b", "abfs+x://b"],
)
def test_addresses_are_refused_wherever_a_path_is_given(tmp_path, address, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = {"models": ("mlp",), "shared_model": "mlp", "num_clients": 4}
    for give in (
        lambda: fm.Federation(client_store="disk", client_folder=address, **small),
        lambda: fm.Federation(data_dir=address, **small),
        lambda: fm.Federation(partition=f"file:{address}", **small),
        lambda: fm.Federation(client_folder=pathlib.Path(address), **small),
        lambda: RunDirectory.create(address),
        lambda: RunDirectory.open(pathlib.Path(address)),
        lambda: partitions.load(address),
        lambda: datasets.load("cifar10", address),
    ):
        with pytest.raises(ValueError, match="local folder and copy it afterwards"):
            give()
    monkeypatch.setenv("TFDS_DATA_DIR", address)
    with pytest.raises(ValueError, match=r"\$TFDS_DATA_DIR must be on a file system"):
        datasets.load("cifar10")
    assert not list(tmp_path.iterdir())


def test_an_address_in_a_file_of_options_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("data_dir: s3://bucket/data")
    assert main(["run", "--config", "a.yaml"]) == 2
    assert "--data-dir must be on a file system" in capsys.readouterr().err


def test_a_folder_of_such_a_name_can_be_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in ("./gs:/x", "./~/x", "./~nobody-of-that-name"):
        path = paths.local(text)
        assert path == tmp_path / text
        assert paths.local(path) == paths.local(str(path)) == path
    assert paths.local("C:/x") == pathlib.Path("C:/x")
    assert paths.local(b"a") == pathlib.Path("a")
    with pytest.raises(paths.PathError, match=r" write '\./gs:/x' here\.$"):
        paths.local("gs:/x")


@pytest.mark.parametrize("name", ["gs:", "~"])
def test_a_folder_of_such_a_name_works_by_every_option(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "a.yaml").write_text("seed: 1")
    there = f"./{name}/"
    config = ["--config", f"{there}a.yaml", "--data-dir", f"{there}d"]
    assert main(["run", *RUN, *config, "--out", f"{there}x"]) == 0
    assert main(["resume", f"{there}x", "--quiet"]) == 0
    assert main(["evaluate", f"{there}x", "--data-dir", f"{there}d"]) == 0
    assert fm.load(f"{there}x").state.round == 0
    options = [*RUN[2:], "--partition", f"file:{there}x/partition.npz"]
    argv = ["--algorithms", "standalone", "--out", f"{there}c", *config]
    assert main(["compare", *argv, *options]) == 0
    assert (tmp_path / name / "c" / "standalone-0" / "summary.json").exists()
    argv = [*RUN, "--out", f"{there}x", "--no-calibration", *config]
    assert main(["plan", *argv]) == 0
    assert os.listdir(tmp_path) == [name]


def test_home_is_found_in_every_form(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["run", *RUN, "--out=~/a"]) == 0
    (tmp_path / "o.yaml").write_text("partition: file:~/a/partition.npz")
    flags = [word for word in RUN if word not in ("--partition", "iid")]
    assert main(["run", *flags, "--out", "~/b", "--config=~/o.yaml"]) == 0
    assert main(["resume", "~/b", "--quiet"]) == 0
    files = [(tmp_path / name / "digests.csv").read_text() for name in ("a", "b")]
    assert files[0] == files[1]
    assert not (tmp_path / "~").exists()


def test_names_and_paths_that_are_too_long_are_refused_first(tmp_path, capsys):
    room = 4096 - paths.RESERVED - len(os.fsencode(tmp_path))
    deep = tmp_path.joinpath(*["d" * 99] * (room // 100))
    longest = deep / ("e" * (room - 100 * (room // 100) - 1))
    assert len(os.fsencode(longest)) == 4096 - paths.RESERVED
    assert main(["run", *RUN, "--out", f"{longest}e"]) == 2
    assert f"at most {4096 - paths.RESERVED} bytes long" in capsys.readouterr().err
    assert main(["run", *RUN, "--out", str(tmp_path / ("ä" * 128))]) == 2
    assert "at most 255 bytes" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main(["run", *RUN, "--out", str(longest)]) == 0
    assert (longest / "checkpoints" / "0").is_dir()


@pytest.mark.parametrize("text", ["a\0b", "a\udcff", "loop/x"])
def test_what_no_file_can_be_named_is_refused(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    assert main(["run", *RUN, "--out", text]) == 2
    told = capsys.readouterr().err
    assert told.startswith("fedjax-mrl: --out ") and told.count("\n") == 1


def test_links_dots_and_slashes_lead_to_the_same_run(tmp_path, monkeypatch, capsys):
    (tmp_path / "real [1]").mkdir()
    (tmp_path / "link").symlink_to("real [1]")
    monkeypatch.chdir(tmp_path)
    assert main(["run", *RUN, "--out", "link/./x/../a/"]) == 0
    monkeypatch.chdir(tmp_path / "real [1]")
    assert main(["resume", "a/", "--quiet"]) == 0
    assert main(["run", *RUN, "--out", "../link/a"]) == 2
    assert "already holds a run" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tfds [1]", "a*b", "**", "a\\b"])
def test_data_sets_lie_in_folders_of_any_name(tmp_path, name, monkeypatch):
    from fedjax_mrl.data import prepared
    from fedjax_mrl.data.dataset import DatasetSpec

    half = (0.5,)
    spec = DatasetSpec("odd", "toy", (5, 5, 1), ("a", "b"), half, half, 4, 2)
    x, y = np.zeros((6, 5, 5, 1), np.uint8), np.arange(6) % 2
    folder = tmp_path / name
    folder.mkdir()
    arrays = {"x_train": x[:4], "y_train": y[:4], "x_test": x[4:], "y_test": y[4:]}
    np.savez(folder / "odd.npz", **arrays)
    # A pattern of the name fits this one too; nothing may be taken from it.
    (tmp_path / "aXb" / "odd" / "1.0.0").mkdir(parents=True)
    made = prepared.import_dataset(spec, folder / "odd.npz", folder)
    assert made == folder / "odd" / "1.0.0"
    np.testing.assert_array_equal(prepared.read(spec, folder).y_train, y[:4])
    assert sorted(p.name for p in folder.iterdir()) == ["odd", "odd.npz"]


@pytest.mark.parametrize(
    "number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF]
)
def test_without_locks_there_is_one_warning(tmp_path, monkeypatch, capsys, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert main(["run", *RUN, "--out", str(tmp_path / "a")]) == 0
    told = capsys.readouterr().err
    assert "has no locks" in told and told.count("\n") == 1
    if number != errno.ENOSYS:
        return
    assert main(["resume", str(tmp_path / "a"), "--rounds", "1", "--quiet"]) == 0
    assert capsys.readouterr().err.count("has no locks") == 1
    more = ["--algorithms", "standalone", "--seeds", "0,1", *RUN[2:]]
    assert main(["compare", *more, "--out", str(tmp_path / "c")]) == 0
    assert capsys.readouterr().err.count("has no locks") == 1


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EIO])
def test_another_error_of_the_lock_stays_a_refusal(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunDirectoryError):
        RunDirectory.create(tmp_path / "a")
