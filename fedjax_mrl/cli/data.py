"""`fedjax-mrl data import`: official files or an npz become a TFDS data set."""

import argparse
import pathlib

from fedjax_mrl.cli import options
from fedjax_mrl.cli.command import Command, UsageError

__all__ = ["data"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", metavar="ACTION", choices=["import"], help="import")
    parser.add_argument("dataset", metavar="NAME", help="data set, see list")
    parser.add_argument(
        "--from", dest="source", metavar="PATH", help="folder of official files, or npz"
    )
    parser.add_argument(
        "--download", action="store_true", help="fetch the official files instead"
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where to put it (TFDS's own)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a prepared data set"
    )


def _execute(args: argparse.Namespace) -> int:
    if (args.source is None) == (not args.download):
        raise UsageError("Give either --from PATH or --download.")
    with options.mistakes_are_usage_errors():
        from fedjax_mrl import datasets
        from fedjax_mrl.data import download, prepared

        spec = datasets.get(args.dataset)
        folder = pathlib.Path(args.data_dir or datasets.default_data_dir())
        if args.download:
            made = download.import_dataset(spec, folder, overwrite=args.overwrite)
        else:
            made = prepared.import_dataset(
                spec, pathlib.Path(args.source), folder, overwrite=args.overwrite
            )
    print(f"{spec.name} is ready in {made}")
    return 0


data = Command("import a data set from official files", _configure, _execute)
