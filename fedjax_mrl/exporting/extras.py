"""The packages of the extra `export`, which not everybody has installed."""

import importlib
import importlib.util

from fedjax_mrl import missing
from fedjax_mrl.exporting.error import ExportError


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def require(package: str, purpose: str) -> None:
    """Refuses a purpose that a missing package is needed for.

    Raises:
        ExportError: with the command that installs it.
    """
    if not installed(package):
        raise ExportError(missing.sentence(purpose, package))
    try:
        importlib.import_module(package)
    except Exception as error:  # whatever a broken package raises
        raise ExportError(
            f"{purpose} needs {package}, which cannot be imported "
            f"({type(error).__name__}: {error}). Install it anew with: python -m pip "
            f"install --force-reinstall {package}"
        ) from None
