"""Writes a Flower app: the folder that `flwr run` sends and that workers read."""

import json
import pathlib
import re

from fedjax_mrl import config as configs
from fedjax_mrl import whole_folder
from fedjax_mrl.building import pieces
from fedjax_mrl.building.values import Values
from fedjax_mrl.config import RunConfig
from fedjax_mrl.flower import instructions, settings
from fedjax_mrl.flower.error import FlowerError

# Said even where they are the defaults: they are what one looks for.
_SAID = ("algorithm", "dataset", "models", "shared_model", "num_clients", "rounds")
# Paths of this machine, which mean nothing on another; and what a server decides.
_LEFT_OUT = ("data_dir", "devices", "client_store")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,38}")

_SERVER = '''"""What Flower's SuperLink runs: the federation's server."""

from fedjax_mrl.flower import apps

app = apps.server_app()
'''
_CLIENT = '''"""What Flower's SuperNodes run: messages go to the worker of the node."""

from fedjax_mrl.flower import apps

app = apps.client_app()
'''

_APP = whole_folder.Kind(
    *("an", "app", "The folder of an app", "app", settings.FILE, FlowerError),
    lambda path: frozenset(),  # none that is there is replaced
)


def create(folder: pathlib.Path, config: RunConfig) -> pathlib.Path:
    """Writes an app for a federation.

    Args:
        folder: new or empty; its name is the app's.
        config: of the federation.

    Returns:
        The folder.

    Raises:
        FlowerError: if the folder cannot be used, or the federation not be deployed.
    """
    folder = folder.absolute()
    _check(folder, config)
    pieces.resolve(config, Values())  # what cannot be played is refused here
    texts = {
        settings.FILE: _project(folder.name, config),
        "README.md": instructions.readme(folder.name, config),
        "app/__init__.py": '"""A federation of fedjax_mrl over Flower."""\n',
        "app/server.py": _SERVER,
        "app/client.py": _CLIENT,
    }
    try:
        files = {name: text.encode() for name, text in texts.items()}
        whole_folder.write(_APP, folder, files)
    except OSError as error:
        raise FlowerError(f"Cannot write {folder}: {error.strerror}.") from None
    return folder


def _check(folder: pathlib.Path, config: RunConfig) -> None:
    if not _NAME.fullmatch(folder.name):
        raise FlowerError(
            f"The folder's name is the app's, and Flower wants a letter first, then "
            f"letters, digits and hyphens, at most 39; got {folder.name!r}."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FlowerError(f"{folder} is there already. Choose a new or empty folder.")
    settings.without_privacy(config)
    if config.held_out_clients:
        raise FlowerError("Clients that are held out have no node; leave them out.")
    if config.dropout or config.straggler:
        raise FlowerError(
            "dropout and straggler are drawn in a simulation; over a network clients "
            "fail by themselves. Leave them out."
        )
    if config.cohort_size < 1:
        raise FlowerError("A round needs at least one client; raise participation.")


def _project(name: str, config: RunConfig) -> str:
    """The text of pyproject.toml."""
    lines = [
        "[project]",
        f"name = {_value(name)}",
        'version = "1.0.0"',
        f"description = {_value(f'{config.title}, by fedjax_mrl')}",
        'license = "Apache-2.0"',
        "# Empty: fedjax_mrl is installed everywhere, in one version. What is named",
        "# here would be fetched from a package index and take its place.",
        "dependencies = []",
        "",
        "[tool.flwr.app]",
        'publisher = "fedjax-mrl"',
        "",
        "[tool.flwr.app.components]",
        'serverapp = "app.server:app"',
        'clientapp = "app.client:app"',
        "",
        "[tool.flwr.app.config]",
        "# Where the server keeps its state and tables; ~ is the home of who runs the",
        "# SuperLink, and a relative folder lies where the SuperLink was started.",
        f"server-folder = {_value(f'{name}-server')}",
        "timeout = 600  # seconds that a round waits; who is later drops out of it",
        f"min-clients = {(config.cohort_size + 1) // 2}  # reports that a round needs",
        "attempts = 3  # how often a round that has fewer is tried",
        "",
        "# The same on every machine. Nodes refuse a server that has other options.",
        "[tool.flwr.app.config.federation]",
        *_options(config),
    ]
    return "\n".join(lines) + "\n"


def _options(config: RunConfig) -> list[str]:
    """The options of a federation, those that are not left at their default."""
    lines = []
    for name, field in configs.fields().items():
        value = getattr(config, name)
        default = field.default
        if name == "set" or name in _LEFT_OUT or value is None:
            continue
        if value == default and name not in _SAID:
            continue
        if isinstance(value, tuple):
            value = ",".join(value)
        lines.append(f"{name.replace('_', '-')} = {_value(value)}")
    if config.set:
        lines += ["", "[tool.flwr.app.config.federation.set]"]
        lines += [f"{key} = {_value(value)}" for key, value in config.set]
    return lines


def _value(value: bool | int | float | str) -> str:
    """A value as TOML has it, which reads JSON's texts and numbers."""
    return json.dumps(value)
