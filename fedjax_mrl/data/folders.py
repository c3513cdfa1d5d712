"""Data sets of the user's own in a folder: told apart by what lies in it."""

from fedjax_mrl import paths
from fedjax_mrl.data import image_folder, leaf
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.data.error import DatasetError


def read(folder: str, image_size: int | None = None) -> Dataset:
    """Reads LEAF's layout where there are json files in DIR/train, else images.

    Args:
        folder: DIR.
        image_size: side in pixels that images are brought to; None needs one size.

    Returns:
        The data set; its name is the path.

    Raises:
        DatasetError: if it cannot be read or used.
    """
    path = paths.local(folder, "The data set")
    if not path.is_dir():
        what = "is a file" if path.exists() else "is not there"
        raise DatasetError(
            f"The data set must be a folder or an npz file, but {folder} {what}; give "
            f"{image_folder.FORM}, or FILE.npz."
        )
    if leaf.is_one(path / "data"):
        path = path / "data"  # where LEAF's preprocess.sh puts it
    if not leaf.is_one(path):
        return image_folder.read(path, folder, image_size)
    if image_size is not None:
        raise DatasetError(
            f"--image-size is for a folder of image files; {folder} has those of LEAF. "
            "Leave it out."
        )
    return leaf.read(path, folder)
