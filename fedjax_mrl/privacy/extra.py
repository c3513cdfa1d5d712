"""The accountant's package, of the extra `privacy`, which not everybody has installed.

On the host only: nothing of it is ever traced.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import logging
import types
from collections.abc import Iterator

from fedjax_mrl import missing
from fedjax_mrl.privacy.error import PrivacyError

PACKAGE = "dp_accounting"


def require() -> None:
    """Refuses an account where there is no accountant.

    Raises:
        PrivacyError: with the command that installs it.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise PrivacyError(missing.sentence("--dp", "dp-accounting"))


def accounting() -> types.ModuleType:
    """The package.

    Raises:
        PrivacyError: if it cannot be imported.
    """
    require()
    try:
        for module in ("pld", "rdp"):
            importlib.import_module(f"{PACKAGE}.{module}")
        return importlib.import_module(PACKAGE)
    except Exception as error:  # whatever a broken package raises
        raise PrivacyError(
            f"--dp needs dp-accounting, which cannot be imported "
            f"({type(error).__name__}: {error}). Install it anew with: python -m pip "
            "install --force-reinstall dp-accounting"
        ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps its warnings from the user: of orders that it leaves out of a minimum."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def version() -> str:
    """Its version."""
    return importlib.metadata.version("dp-accounting")
