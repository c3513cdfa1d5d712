"""Fetches official files through TFDS and imports them."""

import tempfile
from pathlib import Path
from typing import Any

from fedjax_mrl import paths
from fedjax_mrl.data import prepared, tfds_package
from fedjax_mrl.data.dataset import DatasetError, DatasetSpec

_PATIENCE_S = (5, 10)  # to connect to a server; until it sends its first byte


def import_dataset(
    spec: DatasetSpec,
    data_dir: Path,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Fetches the official files through TFDS, verifies and imports them.

    Addresses and SHA-256 sums are those registered in tensorflow_datasets. The files
    stay in `<data_dir>/downloads`, where TFDS finds them too.

    Args:
        spec: which data set.
        data_dir: the folder of TFDS; made if absent.
        overwrite: as in `prepared.import_dataset`.
        progress: whether TFDS shows its progress bars on stderr.

    Returns:
        The folder of the prepared data set.

    Raises:
        DatasetError: without a network, for a wrong checksum, or as
            `prepared.import_dataset`.
    """
    tfds = tfds_package.load()
    name, _ = spec.builder
    try:
        known = tfds.builder_cls(name).url_infos or {}
    except (ValueError, ImportError):  # TFDS's word for a name it does not know
        known = {}
    if not known:
        raise DatasetError(
            f"Only data sets that TFDS knows can be downloaded, and {name} is not one; "
            f"fetch {' or '.join(spec.files) or f'{spec.name}.npz'} yourself and run "
            f"`fedjax-mrl data import {spec.name} --from DIR`."
        )
    with tempfile.TemporaryDirectory() as work:
        for filename, path in _fetch(spec, known, data_dir, progress).items():
            (Path(work) / filename).symlink_to(path)
        return prepared.import_dataset(spec, Path(work), data_dir, overwrite=overwrite)


def _fetch(
    spec: DatasetSpec, known: dict[str, Any], data_dir: Path, progress: bool
) -> dict[str, Path]:
    """Downloads the addresses of `known`; maps official file names to paths."""
    import requests

    tfds = tfds_package.load()
    by_hand = (
        f"fetch {', '.join(info.filename for info in known.values())} on another "
        f"machine and run `fedjax-mrl data import {spec.name} --from DIR`"
    )
    for url in known:
        # TFDS tries ten times, waiting for minutes in all; one look tells it sooner.
        try:
            requests.get(url, stream=True, timeout=_PATIENCE_S).close()
        except requests.RequestException as error:
            raise DatasetError(
                f"Downloading {spec.name} needs a network, but {url} cannot be reached "
                f"({type(error).__name__}); {by_hand}."
            ) from error
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tfds_package.quiet(progress), paths.plain(data_dir) as way:
            manager = tfds.download.DownloadManager(
                download_dir=way / "downloads",
                url_infos=known,
                dataset_name=spec.builder[0],
                force_checksums_validation=True,
            )
            fetched = manager.download(
                {info.filename: url for url, info in known.items()}
            )
            fetched = {name: Path(path).resolve() for name, path in fetched.items()}
    # TFDS has several errors for this, and lets those of requests through.
    except Exception as error:
        raise DatasetError(
            f"Downloading {spec.name} must give the files whose checksums TFDS knows, "
            f"but: {error}. Try again later, or {by_hand}."
        ) from error
    return fetched
