"""Writers: TensorBoard's, one's own, those that fail, W&B and MLflow by fakes."""

import json
import re
import sys
import types
import warnings

import pytest

import fedjax_mrl as fm
from fedjax_mrl.cli.main import main
from fedjax_mrl.runs.directory import RunDirectory
from tests import documents
from tests.runs.test_events import events, numbers

SMALL = {
    "algorithm": "standalone",
    "models": "mlp",
    "shared_model": "mlp",
    "num_clients": 4,
    "partition": "iid",
    "feature_dim": 8,
    "limit_train": 100,
    "limit_test": 50,
}
OPTIONS = [w for k, v in SMALL.items() for w in (f"--{k.replace('_', '-')}", str(v))]
OPTIONS += ["--devices", "1", "--quiet", "--checkpoint-every", "1"]


class Noting(fm.Writer):
    """Notes what it is told."""

    def __init__(self, fails=""):
        self.told, self._fails = [], fails

    def _note(self, method, *words):
        self.told.append((method, *words))
        if method == self._fails:
            raise RuntimeError("no network")

    def begin(self, start):
        self._note("begin", start)

    def round(self, number, values):
        self._note("round", number, values)

    def end(self, summary):
        self._note("end", summary)


def federation(**options):
    return fm.Federation(**{**SMALL, "rounds": 2, **options})


def test_a_writer_is_told_of_settings_rounds_and_the_end():
    writer, trained = Noting(), federation(set={"server.reject_nonfinite": True})
    history = trained.fit(writers=[writer])
    (_, start), *rounds, (_, summary) = writer.told
    assert start.name == "standalone-digits" and start.after == 0
    assert start.config["models"] == "mlp" and start.config["limit_train"] == 100
    assert start.config["server.reject_nonfinite"] is True
    assert start.config["shared_dim"] == "" and "set" not in start.config
    assert start.partition_png[:4] == b"\x89PNG"
    assert [(method, number) for method, number, _ in rounds] == [
        ("round", 1),
        ("round", 2),
    ]
    _, _, values = rounds[-1]
    last = history.rows("metrics")[-2]
    assert (last["point"], last["head"]) == ("local", "local")
    assert values[start.headline] == last["mean_accuracy"]
    assert values["round/train_loss"] == history.rows("rounds")[-1]["train_loss"]
    assert summary["headline"]["last"] == last["mean_accuracy"]
    trained.fit(rounds=1, writers=[writer])
    assert writer.told[4][1].after == 2 and writer.told[5][1] == 3


@pytest.mark.parametrize("method", ["begin", "round", "end"])
def test_a_writer_that_fails_is_left_out_with_one_warning(method):
    failing, sound, trained = Noting(method), Noting(), federation()
    with pytest.warns(UserWarning, match=f"Noting failed in {method}.*no network") as w:
        trained.fit(writers=[failing, sound], progress=False)
    assert len(w) == 1 and w[0].filename == __file__
    assert [word for word, *_ in sound.told] == ["begin", "round", "round", "end"]
    assert failing.told[-1][0] == method and len(trained.history) == 2
    assert sum(word == method for word, *_ in failing.told) == 1


def test_a_run_that_ends_early_ends_its_writers_too():
    writer = Noting()
    with pytest.raises(fm.Diverged):
        federation(learning_rate=1e18).fit(writers=[writer])
    assert writer.told[-1] == ("end", {})
    assert [word for word, *_ in writer.told].count("end") == 1


@pytest.mark.parametrize("wrong", [Noting, object(), len])
def test_what_is_no_writer_is_refused_before_training(wrong):
    trained = federation()
    with pytest.raises(ValueError, match=r"begin\(start\), round\(number, values\)"):
        trained.fit(writers=[wrong])
    assert trained.state is None


MINE = """
import json, pathlib

class Lines:
    count = 0
    def begin(self, start):
        self.path = pathlib.Path(f"{start.name}.txt")
        self.write("begin", start.after)
    def round(self, number, values):
        self.write("round", number)
        if number == 3:
            raise OSError("full")
    def end(self, summary):
        self.write("end", len(summary) > 0)
    def write(self, *words):
        with self.path.open("a") as file:
            file.write(json.dumps(words) + "\\n")

def broken():
    raise RuntimeError("no account")

instance = Lines()
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def lines(path):
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()]


def test_a_writer_is_named_on_the_command_line(mine, capsys):
    words = ["--writer", "mine.py:Lines"]
    assert main(["run", *OPTIONS, "--rounds", "2", "--out", "a", *words]) == 0
    told = [("begin", 0), ("round", 1), ("round", 2), ("end", True)]
    assert lines(mine / "a.txt") == told
    # One that fails leaves the run as it is.
    capsys.readouterr()
    assert main(["resume", "a", "--rounds", "4", "--quiet", *words]) == 0
    assert lines(mine / "a.txt") == [*told, ("begin", 2), ("round", 3)]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Lines failed in round" in said and "full" in said
    assert len(RunDirectory.open("a").rows("rounds.csv")) == 4


def test_each_run_of_a_comparison_has_its_own_writer(mine):
    words = ["compare", "--algorithms", "standalone", "--seeds", "0,1", *OPTIONS[2:]]
    assert (
        main([*words, "--rounds", "1", "--out", "c", "--writer", "mine.py:Lines"]) == 0
    )
    for seed in (0, 1):
        told = [("begin", 0), ("round", 1), ("end", True)]
        assert lines(mine / f"standalone-{seed}.txt") == told


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("wandb", "takes FILE.py:NAME"),
        ("mine.py:Line", "Did you mean 'Lines'?"),
        ("mine.py:instance", "must name a class, or a function without"),
        ("mine.py:broken", "broken() failed: RuntimeError: no account"),
        ("mine.py:json.loads", "loads() failed: TypeError"),
        ("builtins:dict", "A writer is an object with the methods"),
    ],
)
def test_a_wrong_writer_is_refused_before_anything_is_written(
    mine, capsys, word, message
):
    assert main(["run", *OPTIONS, "--rounds", "1", "--out", "a", "--writer", word]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and not (mine / "a").exists()


def test_tensorboard_has_the_picture_and_the_settings_once(tmp_path):
    out = tmp_path / "run"
    more = ["--set", "server.reject_nonfinite=true"]
    assert main(["run", *OPTIONS, *more, "--rounds", "1", "--out", str(out)]) == 0
    assert main(["resume", str(out), "--rounds", "2", "--quiet"]) == 0
    found = events(out / "tensorboard")
    images = [v for e in found for v in e.summary.value if v.HasField("image")]
    (image,) = images
    png = (out / "partition.png").read_bytes()
    assert image.tag == "partition" and image.image.encoded_image_string == png
    assert (image.image.width, image.image.height) == (
        int.from_bytes(png[16:20]),
        int.from_bytes(png[20:24]),
    )
    tags = [v.tag for e in found for v in e.summary.value if "_hparams_" in v.tag]
    assert [tag.rpartition("/")[2] for tag in tags] == [
        "experiment",
        "session_start_info",
        "session_end_info",
        "session_end_info",
    ]
    plugin = pytest.importorskip("tensorboardX.proto.plugin_hparams_pb2")
    (content,) = [
        plugin.HParamsPluginData.FromString(v.metadata.plugin_data.content)
        for e in found
        for v in e.summary.value
        if v.tag.endswith("session_start_info")
    ]
    known = content.session_start_info.hparams
    assert known["batch_size"].number_value == 64
    assert known["models"].string_value == "mlp"
    assert known["server.reject_nonfinite"].bool_value is True
    assert [step for step, _ in numbers(found, "mean_accuracy/local/local")] == [1, 2]


def test_python_writes_events_too(tmp_path, monkeypatch):
    federation().fit(writers=[fm.TensorBoard(tmp_path / "tb")])
    found = events(tmp_path / "tb")
    assert [step for step, _ in numbers(found, "round/train_loss")] == [1, 2]
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match="pip install"):
        fm.TensorBoard(tmp_path)


def example(name):
    """The writer of that name in docs/logging.md."""
    (block,) = [
        block.text
        for block in documents.blocks()
        if block.document == "docs/logging.md" and f"class {name}" in block.text
    ]
    code = block.partition("begin(self")[2]
    assert len([t for t in code.splitlines() if t.strip()]) <= 13
    names = {}
    exec(compile(block, "docs/logging.md", "exec"), names)
    return names[name]


def test_the_example_for_wandb_logs_to_it(monkeypatch, tmp_path):
    calls = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append(("log", step, values)),
        summary={},
        finish=lambda: calls.append(("finish",)),
    )
    fake = types.SimpleNamespace(
        init=lambda **options: calls.append(("init", options)) or run,
        Image=lambda picture: ("image", picture.size),
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    federation().fit(writers=[example("WandbWriter")()])
    kinds = [kind for kind, *_ in calls]
    assert kinds == ["init", "log", "log", "log", "finish"]
    _, options = calls[0]
    assert options["config"]["num_clients"] == 4 and options["resume"] == "allow"
    assert calls[1][2]["partition"][0] == "image"
    assert calls[3][1] == 2 and "round/train_loss" in calls[3][2]
    assert "last" in run.summary["headline"]


def test_the_example_for_mlflow_logs_to_it(monkeypatch):
    calls = []
    note = lambda name: lambda *a, **k: calls.append((name, a, k))
    client = types.SimpleNamespace(
        create_run=lambda *a, **k: (
            calls.append(("create_run", a, k))
            or types.SimpleNamespace(info=types.SimpleNamespace(run_id="r"))
        ),
        log_param=note("log_param"),
        log_metric=note("log_metric"),
        set_terminated=note("set_terminated"),
    )
    fake = types.SimpleNamespace(MlflowClient=lambda: client)
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        federation().fit(writers=[example("MlflowWriter")()])
    named = [name for name, *_ in calls]
    assert named[0] == "create_run" and named[-1] == "set_terminated"
    params = {a[1]: a[2] for name, a, _ in calls if name == "log_param"}
    assert params["num_clients"] == 4
    steps = [k["step"] for name, _, k in calls if name == "log_metric"]
    assert set(steps) == {1, 2}
    for name, a, _ in calls:
        if name == "log_metric":  # what MLflow allows in names
            assert re.fullmatch(r"[\w./ -]+", a[1])
