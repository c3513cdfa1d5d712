"""`fedjax-mrl doctor`: versions, devices, data; what is missing, how to get it."""

import argparse
import os

from fedjax_mrl.cli.command import Command

__all__ = ["doctor"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", metavar="DIR", help="where to look for data")


def _execute(args: argparse.Namespace) -> int:
    from fedjax_mrl.runs import environment

    found = environment.software()
    print(f"python      {found['python']} on {found['platform']}")
    for name, version in found["packages"].items():
        print(f"{name:24}{version or 'missing'}")
    device = _devices(found["cpu_count"])
    print(f"XLA_FLAGS   {os.environ.get('XLA_FLAGS') or '(none)'}")
    data = _data(args.data_dir)
    problems = [f"devices     {device}"] if device else []
    needed = [name for name, version in found["packages"].items() if version is None]
    needed = [name for name in needed if name != "fedjax-mrl"]
    if needed:
        problems.append(f"packages    python -m pip install {' '.join(needed)}")
    if problems or data:
        print("What is missing")
    for problem in (*problems, *data):
        print(f"  {problem}")
    return 1 if device else 0


def _data(data_dir: str | None) -> list[str]:
    """Prints a line for each data set; returns what to do about those there are not."""
    from fedjax_mrl import datasets
    from fedjax_mrl.data.error import DatasetError, MissingError

    missing, problems = [], []
    for name in datasets.names():
        try:
            data = datasets.load(name, data_dir)
        except MissingError:
            missing.append(name)
            print(f"data        {name}: missing")
        except DatasetError as error:
            problems.append(f"data        {name}: {error}")
            print(f"data        {name}: cannot be used")
        else:
            train, test = len(data.y_train), len(data.y_test)
            print(f"data        {name}: {train} training and {test} test images")
    print(f"data        your own: --dataset {', '.join(datasets.FORMS)} (see `list`)")
    if missing:
        where = data_dir or datasets.default_data_dir()
        problems.append(
            f"data        {', '.join(missing)}: not in {where}; `fedjax-mrl data "
            f"import {missing[0]} --from DIR` takes the folder of the official files "
            "or an npz, `--download` in its place fetches them"
        )
    return problems


def _devices(cores: int | None) -> str:
    """Prints the devices; returns what to do if there are none, else nothing.

    Without any nothing can be trained.
    """
    import jax

    from fedjax_mrl.runs import environment

    try:
        present = environment.devices()
    except environment.DeviceError as error:
        print(f"devices     none; {cores} CPU cores")
        return str(error)
    kinds = ", ".join(device.device_kind for device in present)
    print(f"devices     {jax.default_backend()}: {kinds}; {cores} CPU cores")
    return ""


doctor = Command(
    "versions, devices, data found; what is missing and how to get it",
    _configure,
    _execute,
)
