"""Tells what nobody foresaw apart from wrong use, and says where it may lie."""

import dis
import importlib.machinery
import os
import pathlib
import sys
import sysconfig
import traceback

TRACEBACK = "FEDJAX_MRL_TRACEBACK"  # an environment variable
_RAISE = bytes([dis.opmap["RAISE_VARARGS"]])
_PACKAGE = __name__.partition(".")[0]


class Defect(Exception):
    """An error of this package's code, of the user's own, or of what lies beside it.

    Its cause is what was raised; its text one sentence for the user.
    """

    def __init__(self, cause: Exception) -> None:
        reason = " ".join(str(cause).split())[:300].rstrip(".")
        hiding = _hiding(cause)
        where = (
            f"{hiding} of this folder hides another module of that name; rename it"
            if hiding
            else "This is a defect of fedjax-mrl, or of code of your own, and no wrong "
            "use; please report it"
        )
        super().__init__(
            f"{type(cause).__name__}: {reason}. {where}. With {TRACEBACK}=1 before the "
            "command its traceback is shown."
        )


def foreseen(error: BaseException) -> bool:
    """Whether an error was raised on purpose, as an answer to what the user gave.

    That is one of this package's own types, or one that a `raise` of this package or
    of the user's own code raised. What Python or a library raised, and nobody took for
    an answer, is not.
    """
    if type(error).__module__.partition(".")[0] == _PACKAGE:
        return True
    last = error.__traceback__
    if last is None:
        return False
    while last.tb_next is not None:
        last = last.tb_next
    code, place = last.tb_frame.f_code, last.tb_lasti
    raised = code.co_code[place : place + 1] == _RAISE
    package = last.tb_frame.f_globals.get("__name__", "").partition(".")[0]
    return raised and (package == _PACKAGE or not _installed(code.co_filename))


def show(defect: Defect) -> None:
    """Prints the traceback of a defect to stderr, if the environment asks for it."""
    if os.environ.get(TRACEBACK):
        traceback.print_exception(defect.__cause__)


def _installed(file: str) -> bool:
    """Whether a source file is Python's or an installed package's."""
    paths = (sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    above = pathlib.Path(file).parents
    return file.startswith("<") or any(pathlib.Path(path) in above for path in paths)


def _hiding(error: BaseException) -> str | None:
    """A file of the working folder, on the way of an error, that hides a module."""
    here = pathlib.Path.cwd()
    elsewhere = [path for path in sys.path if pathlib.Path(path).absolute() != here]
    find = importlib.machinery.PathFinder.find_spec
    for frame, _ in traceback.walk_tb(error.__traceback__):
        path = pathlib.Path(frame.f_code.co_filename).absolute()
        path = path.parent if path.name == "__init__.py" else path
        if path.parent == here and find(path.stem, elsewhere) is not None:
            return path.name
    return None
