"""`fedjax-mrl list`: algorithms, models, datasets, partitions, presets."""

import argparse
import inspect

from fedjax_mrl.cli.command import Command

__all__ = ["list_"]


def _configure(parser: argparse.ArgumentParser) -> None:
    del parser  # takes nothing


def _execute(args: argparse.Namespace) -> int:
    del args
    from fedjax_mrl import algorithms, config, datasets, models, partitions

    print("algorithms")
    for name in algorithms.names():
        module = inspect.getmodule(algorithms.get(name))
        print(f"  {name:16}{_first_line(module)}")
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
            text = getattr(value, "description", None) or _first_line(value)
            print(f"  {name:16}{text}")
    print("presets")
    for name, path in config.presets().items():
        text = path.read_text(encoding="utf-8").splitlines()[0]
        print(f"  {name:31} {text.lstrip('# ')}")
    return 0


def _first_line(value: object) -> str:
    return (inspect.getdoc(value) or "").split("\n")[0]


list_ = Command(
    "algorithms, models, datasets, partitions, presets", _configure, _execute
)
