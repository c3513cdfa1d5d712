"""The file of a partition, partition.npz."""

import io
import os
from collections.abc import Sequence

import numpy as np

from fedjax_mrl import array_files, paths, whole_file
from fedjax_mrl.partitions._partition import Partition, PartitionError


def save(
    path: str | os.PathLike, partition: Partition, clients: Sequence[str] = ()
) -> None:
    """Writes `partition` to the npz file `path`, which never is there half written.

    Args:
        path: of the file.
        partition: positions of every client.
        clients: the names of the clients by their number, if they have any.
    """
    path = paths.local(path, "The partition")
    arrays = {"clients": np.array(clients)} if clients else {}
    for part, positions in partition._asdict().items():
        arrays[part] = np.concatenate([*positions, np.zeros(0, np.int32)])
        arrays[f"{part}_offsets"] = np.cumsum([0, *(p.size for p in positions)])
    file = io.BytesIO()
    np.savez(file, **arrays)  # pyrefly: ignore[bad-argument-type]
    whole_file.write(path, file.getvalue(), alone=False)


def load(path: str | os.PathLike) -> Partition:
    """Reads what `save` wrote.

    Raises:
        PartitionError: if there is no such file or it holds something else.
    """
    try:
        path = paths.local(path, "The partition")
    except paths.PathError as error:
        raise PartitionError(str(error)) from None
    try:
        with (
            array_files.reading(),
            open(path, "rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            parts = {
                part: tuple(np.split(arrays[part], arrays[f"{part}_offsets"][1:])[:-1])
                for part in Partition._fields
            }
    except OSError as error:
        raise PartitionError(
            f"The partition {os.fspath(path)} must be a readable file, but: "
            f"{error.strerror}."
        ) from error
    except array_files.DamagedError as error:
        raise PartitionError(
            f"{os.fspath(path)} must be a file that `partitions.save` wrote, but it "
            "holds something else; make the partition anew."
        ) from error
    return Partition(**parts)
