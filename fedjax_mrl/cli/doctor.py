"""`fedjax-mrl doctor`: versions, devices, data; what is missing, how to get it."""

import argparse

from fedjax_mrl.cli.command import Command

__all__ = ["doctor"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", metavar="DIR", help="where to look for data")


def _execute(args: argparse.Namespace) -> int:
    from fedjax_mrl import datasets, environment
    from fedjax_mrl.data.dataset import DatasetError

    found = environment.describe()
    print(f"python      {found['python']} on {found['platform']}")
    for name, version in found["packages"].items():
        print(f"{name:24}{version or f'missing: pip install {name}'}")
    devices = ", ".join(found["devices"])
    print(f"devices     {found['backend']}: {devices}; {found['cpu_count']} CPU cores")
    print(f"XLA_FLAGS   {found['xla_flags'] or '(none)'}")
    missing = [name for name, version in found["packages"].items() if version is None]
    for name in datasets.names():
        try:
            data = datasets.load(name, args.data_dir)
        except DatasetError as error:
            print(f"data        {name}: {error}")
        else:
            train, test = len(data.y_train), len(data.y_test)
            print(f"data        {name}: {train} training and {test} test images")
    needed = [name for name in missing if name not in ("fedjax-mrl",)]
    if needed:
        print(f"missing     pip install {' '.join(needed)}")
    return 0


doctor = Command(
    "versions, devices, data found; what is missing and how to get it",
    _configure,
    _execute,
)
