"""The package tensorflow_datasets: imported when it is needed, and kept silent.

The only module that imports it, and only inside a function: it takes seconds.
"""

import contextlib
import io
import logging
from collections.abc import Iterator
from types import ModuleType

from fedjax_mrl.data.error import DatasetError


def load() -> ModuleType:
    """The package.

    Raises:
        DatasetError: if it is not installed.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DatasetError(
            "Prepared data sets need tensorflow-datasets, which cannot be imported "
            f"({error}). Install it with: python -m pip install tensorflow-datasets, "
            "or give a --data-dir with official files."
        ) from error
    return tfds


@contextlib.contextmanager
def quiet(progress: bool = False) -> Iterator[None]:
    """Keeps what TFDS prints, logs and draws from the terminal."""
    logger = logging.getLogger("absl")
    with contextlib.ExitStack() as stack:
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        if not progress:
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield
