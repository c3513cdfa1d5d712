"""The app's folder, its keys and settings, the worker; and Flower's public names."""

import ast
import importlib
import importlib.metadata
import os
import pathlib
import re
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("flwr")

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from flwr.cli.build import build
from flwr.serverapp import Grid

import fedjax_mrl as fm
from fedjax_mrl.cli import main as cli
from fedjax_mrl.flower import keys, messages, settings, sockets, wire, worker
from fedjax_mrl.flower.error import FlowerError
from fedjax_mrl.runs.error import RunDirectoryError
from tests.flower.network import Deployment
from tests.flower.test_rounds import federation
from tests.helpers import ROOT

SMALL = ("--models", "mlp", "--shared-model", "mlp", "--num-clients", "5")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern")  # of Flower
def test_new_writes_an_app_that_flower_builds_and_everybody_reads(folder, capsys):
    words = [*SMALL, "--set", "algorithm.shared_dim=8", "--seed", "3"]
    assert cli.main(["flower", "new", "fed", *words]) == 0
    assert "README.md" in capsys.readouterr().out
    found = settings.read(pathlib.Path("fed"))
    config = found.federation
    assert (config.models, config.seed, config.num_clients) == (("mlp",), 3, 5)
    assert config.set == (("algorithm.shared_dim", 8),)
    assert found.patience == settings.Patience(600.0, 3, 3)
    text = pathlib.Path("fed/pyproject.toml").read_text(encoding="utf-8")
    assert "dependencies = []" in text
    build(pathlib.Path("fed"))
    assert list(folder.glob("*.fab"))
    readme = pathlib.Path("fed/README.md").read_text(encoding="utf-8")
    for line in readme.splitlines():
        if line.startswith("fedjax-mrl flower "):
            cli.parse(line.rstrip("&").split()[1:])
    assert cli.main(["flower", "new", "fed", *words]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.slow
def test_a_node_tests_what_its_client_became(folder, capsys):
    words = ["--limit-train", "200", "--rounds", "1", "--partition", "iid"]
    assert cli.main(["flower", "new", "fed", *SMALL, *words]) == 0
    built = fm.Federation(settings.read(pathlib.Path("fed")).federation)
    Deployment(built, folder).loop().run()
    capsys.readouterr()
    words = ["flower", "evaluate", "fed", "--client", "3", "--state"]
    assert cli.main([*words, "node-3"]) == 0
    said = capsys.readouterr().out
    scores = built.result(*built.play(built.init())).scores
    assert "client 3 after round 1" in said
    for head, accuracy in zip(built.algorithm.heads, scores.accuracy[0], strict=True):
        assert re.search(rf"{head} +{accuracy[3]:.4f}\n", said), (head, said)
    assert cli.main([*words, "node-2"]) == 2
    assert "holds no state" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["new", "3x", *SMALL], "wants a letter first"),
        (["new", "fed", *SMALL, "--dropout", "0.5"], "drawn in a simulation"),
        (["new", "fed", *SMALL, "--held-out-clients", "1"], "have no node"),
        (["new", "fed", *SMALL, "--set", "algorithm.what=1"], "what"),
        (["new", "fed", "--client", "1"], "--client is no flag of flower new"),
        (["keys", "k", "--clients", "x", "--host", "a"], "takes a number of nodes"),
        (
            ["new", "fed", *SMALL, "--dp", "clip=1,noise=2,delta=1e-3"],
            "for simulations",
        ),
        (["keys", "k", "--clients", "0", "--host", "a"], "at least one node"),
        (["keys", "k", "--clients", "2", "--host", "http://a"], "without a scheme"),
        (["keys", "k", "--clients", "2", "--host", "a:80"], "got 'a:80'"),
        (["keys", "k", "--clients", "2", "--host", "a,,c"], "got ''"),
        (["keys", "k", "--clients", "2", "--host", "999.1.1.1"], "got '999.1.1.1'"),
        (["keys", "k", "--clients", "2"], "how nodes reach the server"),
        (["worker", "fed", "--client", "1"], "Say whose worker"),
        (["worker", "fed", "--client", "1", "--state", "s"], "cannot be read"),
        (["worker", "fed", "--rounds", "1"], "--rounds is no flag of flower worker"),
        (["try", "fed"], "Say where keys"),
        (["new", "gs://b/x"], "APP must be on a file system"),
        (["train", "fed"], "There is no ACTION"),
    ],
)
def test_wrong_use_is_said_in_a_sentence(folder, capsys, words, said):
    assert cli.main(["flower", *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_settings_that_are_none_are_refused(folder):
    known = {"server-folder": "s", "timeout": 5, "min-clients": 1, "attempts": 1}
    assert settings.of(known).patience.timeout == 5
    for words, change in {
        "which is none of": {"time-out": 3},
        "must be above 0": {"timeout": 0},
        "must be a number": {"attempts": "many"},
        "no option 'federation.modls'|modls": {"federation.modls": "mlp"},
    }.items():
        with pytest.raises(ValueError, match=words):
            settings.of(known | change)
    with pytest.raises(FlowerError, match="lacks 'timeout'"):
        settings.of({"server-folder": "s"})


def test_keys_are_for_their_owner_and_the_certificate_for_its_hosts(folder):
    made = keys.create(folder / "k", ["localhost", "127.0.0.1"], 2)
    assert set(made) == {path.name for path in (folder / "k").iterdir()}
    for path in (folder / "k").glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    load = lambda name: x509.load_pem_x509_certificate(
        (folder / "k" / name).read_bytes()
    )
    server, authority = load("server.pem"), load("ca.pem")
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["localhost"]
    private = serialization.load_ssh_private_key(
        (folder / "k" / "client-1.key").read_bytes(), None
    )
    public = (folder / "k" / "client-1.pub").read_bytes()
    assert serialization.load_ssh_public_key(public) == private.public_key()
    with pytest.raises(FlowerError, match="not empty"):
        keys.create(folder / "k", ["a"], 1)


@pytest.fixture(scope="module")
def built():
    return federation("standalone")


def running(built, folder, told, client=2):
    """A worker in a thread, its socket, and what ends it."""
    path = folder / "run" / "socket"
    made = worker.Worker(built, client, folder / "state", path, told.append)
    asked = []
    thread = threading.Thread(target=made.run, args=(lambda: asked or None,))
    thread.start()

    def end():
        asked.append(True)
        thread.join()

    return made, path, end


def test_a_worker_answers_its_owner_alone_whatever_it_is_sent(built, folder):
    told = []
    made, path, end = running(built, folder, told)
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "state").stat().st_mode) == 0o700
        answer = wire.decode(sockets.ask(str(path), b"nothing"))
        assert answer.fields["kind"] == "error"
        for noise in (b"", b"\0" * 8, b"\xff" * 8, b"\0\0\0\0\0\0\0\x05ab"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                connection.sendall(noise)
        options = {}
        answer = wire.decode(sockets.ask(str(path), messages.hello(options)))
        assert "configured otherwise" in answer.fields["reason"]
        made._node.answer = lambda data: 1 / 0
        answer = wire.decode(sockets.ask(str(path), b""))
        assert "ZeroDivisionError" in answer.fields["reason"]
        assert "Failed: ZeroDivisionError: division by zero" in told
        with pytest.raises(RunDirectoryError, match="Another process"):
            worker.Worker(built, 2, folder / "state", path, told.append)
        with pytest.raises(FlowerError, match="Another worker listens"):
            worker.Worker(built, 2, folder / "other", path, told.append)
    finally:
        end()
    assert not path.exists()
    _, path, end = running(built, folder, told)  # the next one takes its place
    end()


def test_an_empty_message_is_answered_however_slowly_it_is_sent(folder, monkeypatch):
    """The worker may have answered and closed before the sender goes on."""

    class Slow(socket.socket):
        def sendall(self, data):
            super().sendall(data)
            if threading.current_thread() is not thread:
                time.sleep(0.2)

    path, asked = folder / "run" / "socket", []
    with sockets.listen(path) as listening:
        arguments = (listening, lambda data: b"an answer", lambda: asked or None)
        thread = threading.Thread(target=sockets.serve, args=arguments)
        thread.start()
        with monkeypatch.context() as patched:
            patched.setattr(socket, "socket", Slow)
            assert sockets.ask(str(path), b"") == b"an answer"
        asked.append(True)
        thread.join()


def test_sockets_that_others_could_reach_are_not_made(folder):
    (folder / "open").mkdir(mode=0o755)
    os.chmod(folder / "open", 0o755)
    with pytest.raises(FlowerError, match="its owner's alone"):
        sockets.listen(folder / "open" / "socket")
    with pytest.raises(FlowerError, match="shorter --socket"):
        sockets.listen(folder / ("x" * 100) / "socket")


def test_the_rest_needs_no_flower_and_the_client_app_no_jax():
    """Flower begins a process for every message: what it imports is waited for."""
    code = (
        "import sys; from fedjax_mrl.flower import apps; apps.client_app();"
        "assert 'jax' not in sys.modules and 'flwr' in sys.modules;"
        "[sys.modules.pop(m) for m in list(sys.modules) if m.startswith('flwr')];"
        "import fedjax_mrl.federation, fedjax_mrl.cli.main as m; m.parser();"
        "assert not any(n.startswith('flwr') for n in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_only_public_names_of_flower_are_used():
    """In the modules that Flower documents, of the versions that setup.cfg says."""
    used = set()
    for path in (ROOT / "fedjax_mrl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "flwr"
            ):
                used |= {(node.module, alias.name) for alias in node.names}
            if isinstance(node, ast.Import):
                assert not any(a.name.startswith("flwr") for a in node.names), path
    assert {module for module, _ in used} == {
        "flwr.app",
        "flwr.clientapp",
        "flwr.serverapp",
    }
    for module, name in used:
        assert name in importlib.import_module(module).__all__, (module, name)
    for name in ("get_nodes", "push_messages", "pull_messages"):
        assert callable(getattr(Grid, name))
    assert importlib.metadata.version("flwr").startswith("1.42.")
    assert "flwr>=1.42,<1.43" in (ROOT / "setup.cfg").read_text(encoding="utf-8")
