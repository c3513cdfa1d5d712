"""`fedjax-mrl list`: algorithms, models, datasets, partitions, presets."""

import argparse
import inspect
import pathlib
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator

from fedjax_mrl.cli.command import Command

__all__ = ["list_"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="runs/reproduce",
        help="folder with the folders of reproduce presets, of which is said how far "
        "each has come (runs/reproduce)",
    )


def _execute(args: argparse.Namespace) -> int:
    from fedjax_mrl import algorithms, config, datasets, models, partitions

    print("algorithms")
    for name in algorithms.names():
        module = inspect.getmodule(algorithms.get(name))
        _say(f"{name:23} ", _first_sentence(module))
        for option, default in algorithms.hyperparameters(name).items():
            print(f"    --set algorithm.{option}={default}")
    for title, package in (
        ("models", models),
        ("datasets", datasets),
        ("partitions", partitions),
    ):
        print(title)
        for name in package.names():
            value = package.get(name)
            text = getattr(value, "description", None) or _first_sentence(value)
            _say(f"{name:16}", text)
        if package is datasets:
            for form, text in datasets.FORMS.items():
                _say(f"{form:16}", text)
    print("presets")
    for name, path in config.presets().items():
        text = path.read_text(encoding="utf-8").splitlines()[0]
        _say(f"{name:31} ", text.lstrip("# "))
    print("reproduce presets")
    for name, title, progress in _reproductions(pathlib.Path(args.out)):
        _say(f"{name:31} ", f"{title} ({progress})")
    return 0


def _reproductions(root: pathlib.Path) -> Iterator[tuple[str, str, str]]:
    """Name and title of each reproduce preset, and how far each scale has come."""
    from fedjax_mrl.reproducing import parts, preset

    for name in preset.names():
        found, out = preset.get(name), root / name
        find = parts.Finder(out)
        words = []
        for scale in found.scales.values():
            runs = [run for part in parts.plan(found, scale, out) for run in part.runs]
            done = sum(find(run).path is not None for run in runs)
            words.append(f"{scale.name}: {done} of {len(runs)} runs done")
        yield name, found.title, ", ".join(words)


def _first_sentence(value: object) -> str:
    """Of a docstring, without its line breaks."""
    paragraph = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.) ", paragraph, maxsplit=1)[0]


def _say(name: str, text: str) -> None:
    """Prints a name and what it is, on a terminal as wide as that."""
    start = f"  {name}"
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        indent = " " * len(start) if len(start) < width // 2 else " " * 4
        text = textwrap.fill(
            start + text, width, subsequent_indent=indent, break_on_hyphens=False
        )
        print(text)
    else:
        print(start + text)


list_ = Command(
    "algorithms, models, datasets, partitions, presets", _configure, _execute
)
