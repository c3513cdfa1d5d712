"""`fedjax-mrl doctor`: versions, devices, data; what is missing, how to get it."""

import argparse
import os

from fedjax_mrl.cli.command import Command

__all__ = ["doctor"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", metavar="DIR", help="where to look for data")


def _execute(args: argparse.Namespace) -> int:
    from fedjax_mrl import datasets
    from fedjax_mrl.data.dataset import DatasetError
    from fedjax_mrl.runs import environment

    software = environment.software()
    print(f"python      {software['python']} on {software['platform']}")
    for name, version in software["packages"].items():
        print(f"{name:24}{version or f'missing: pip install {name}'}")
    status = _devices(software["cpu_count"])
    print(f"XLA_FLAGS   {os.environ.get('XLA_FLAGS') or '(none)'}")
    missing = [
        name for name, version in software["packages"].items() if version is None
    ]
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
    return status


def _devices(cores: int | None) -> int:
    """Prints the devices; returns 1 if there are none, else 0."""
    import jax

    from fedjax_mrl.runs import environment

    try:
        present = environment.devices()
    except environment.DeviceError as error:
        print(f"devices     none; {cores} CPU cores. {error}")
        return 1
    kinds = ", ".join(device.device_kind for device in present)
    print(f"devices     {jax.default_backend()}: {kinds}; {cores} CPU cores")
    return 0


doctor = Command(
    "versions, devices, data found; what is missing and how to get it",
    _configure,
    _execute,
)
