"""Names of users' own objects: `package.module:name`, and `FILE.py:name`.

Wherever a name of an algorithm or a model is taken, such a reference is taken too.
"""

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from fedjax_mrl import discovery, paths


class CodeError(ValueError):
    """A reference that leads nowhere; the message says what to do."""


def is_reference(text: str) -> bool:
    """Whether a text refers to an object of the user's own."""
    return ":" in text


def load(text: str) -> Any:
    """Returns the object that a reference names; a file is run once.

    Args:
        text: `package.module:name`, or `FILE.py:name`. The file may import others
            beside it.

    Raises:
        CodeError: if there is no such module or name, or importing it fails.

    Example:
        >>> load("fedjax_mrl.algorithms.fedavg:fedavg").__name__
        'fedavg'
    """
    where, name = _split(text)
    module = _from_file(text, where) if where.endswith(".py") else _import(text, where)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise CodeError(f"{text}: {discovery.unknown('name', name, _own(module))}")
        found = getattr(found, part)
    return found


def _own(module: ModuleType) -> list[str]:
    """The names that a module offers: functions and classes that it defines itself."""
    listed = getattr(module, "__all__", None)
    if listed:
        return list(listed)
    public = {k: v for k, v in vars(module).items() if not k.startswith("_")}
    made = [
        name
        for name, value in public.items()
        if callable(value) and getattr(value, "__module__", "") == module.__name__
        if not hasattr(value, "_fields")  # a NamedTuple holds something
    ]
    return made or list(public)


def call(function: Callable[..., Any], takes: str, *args: Any, **options: Any) -> Any:
    """Calls a function of the user's own.

    Args:
        function: which may be anything that can be called.
        takes: how messages say what it is called with.
        *args: for the function.
        **options: likewise.

    Raises:
        CodeError: if it fails; a ValueError of its own is an answer and stays.
    """
    try:
        return function(*args, **options)
    except ValueError:
        raise
    except (Exception, SystemExit) as error:
        name = getattr(function, "__name__", type(function).__name__)
        last = traceback.extract_tb(error.__traceback__)[-1]
        inside = last.filename != __file__  # it did begin
        place = f" in line {last.lineno} of {last.filename}" if inside else ""
        raise CodeError(
            f"{name} is called with {takes} and failed{place}: {_reason(error)}. "
            "Mend that."
        ) from error


def beside(name: str) -> str:
    """A sentence on the file NAME.py, if there is one here; else nothing."""
    if not name.isidentifier() or not os.path.isfile(f"{name}.py"):
        return ""
    return f" Yours in the file {name}.py is named {name}.py:{name}."


def short(text: str) -> str:
    """The last name of a reference, for folders and tables.

    Example:
        >>> short("methods/mine.py:fedbias"), short("fedmrl")
        ('fedbias', 'fedmrl')
    """
    return _split(text)[1].rpartition(".")[2] if is_reference(text) else text


def is_data_path(text: str) -> bool:
    """Whether the name of a data set is the path of an npz file or a folder.

    A name that a data set of this library has is not, even where there is such a
    folder; `./NAME` is.

    Example:
        >>> [is_data_path(text) for text in ("digits", "a.npz", "./digits", "/data/b")]
        [False, True, True, True]
    """
    if text.endswith(".npz") or text.startswith(("/", "./", "../", "~")):
        return True
    if text in (".", "..") or "://" in text:  # an address is refused as a path
        return True
    return os.path.isdir(text) and text not in discovery.find("fedjax_mrl.datasets")


def data_title(text: str) -> str:
    """The short name of a data set that is named by its path, for folders and tables.

    Example:
        >>> data_title("digits"), data_title("/data/a: b"), data_title("/data/own.npz")
        ('digits', 'a: b', 'own')
    """
    path = pathlib.PurePath(text)
    if text.endswith(".npz"):
        return path.stem
    return path.name if path.is_absolute() and path.name else text


def absolute(text: str) -> str:
    """The same reference from whatever folder it is read; others stay as they are.

    Raises:
        PathError: for a file that cannot be named, see `paths.local`.
    """
    if not is_reference(text):
        return text
    where, name = _split(text)
    if not where.endswith(".py"):
        return text
    return f"{_path(where)}:{name}"


def of(value: object) -> str | None:
    """The reference that leads to an object, or None if there is none.

    There is none to what was made in a notebook, in a script or within a function.
    """
    name = getattr(value, "__qualname__", None)
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    if name is None or module is None or not name.isidentifier():
        return None
    if module.__name__ == "__main__" or getattr(module, name, None) is not value:
        return None
    file = getattr(module, "__file__", None) or ""
    lone = not module.__name__.partition(".")[1] and file.endswith(".py")
    if lone and pathlib.Path(file).name != "__init__.py":
        return f"{pathlib.Path(file).absolute()}:{name}"
    return f"{module.__name__}:{name}"


def checksum(text: str) -> str:
    """SHA-256 of the source file that a reference leads to, in hex.

    Of that file alone, not of what it imports.
    """
    where, _ = _split(text)
    if not where.endswith(".py"):
        where = getattr(_import(text, where), "__file__", None) or ""
    try:
        return hashlib.sha256(pathlib.Path(where).read_bytes()).hexdigest()
    except OSError as error:
        raise CodeError(f"Cannot read {where!r}: {error.strerror}.") from None


def checksums(names: Iterable[str]) -> dict[str, str]:
    """The checksum of every reference among some names."""
    return {name: checksum(name) for name in names if is_reference(name)}


def _split(text: str) -> tuple[str, str]:
    where, _, name = text.rpartition(":")
    if not where or not all(part.isidentifier() for part in name.split(".")):
        raise CodeError(
            "Your own code is named as FILE.py:NAME or package.module:NAME, as in "
            f"mine.py:fedbias; got {text!r}."
        )
    return where, name


def _path(where: str) -> pathlib.Path:
    """The file's whole path, one for every way to write it."""
    path = paths.local(where, "The file of your code").absolute()
    return pathlib.Path(os.path.normpath(path))


def _import(text: str, where: str) -> ModuleType:
    try:
        return importlib.import_module(where)
    except (Exception, SystemExit) as error:
        raise _failed(text, error) from error


def _from_file(text: str, where: str) -> ModuleType:
    path = _path(where)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise CodeError(
            f"{text} must name a Python file, but {str(path)!r} cannot be read: "
            f"{error.strerror}. Give its path, as seen from here."
        ) from None
    try:
        return _run(path, hashlib.sha256(source).hexdigest())
    except (Exception, SystemExit) as error:
        raise _failed(text, error) from error


@functools.cache
def _run(path: pathlib.Path, sha256: str) -> ModuleType:
    """The module of a file; once for each content, so that objects stay the same."""
    name = f"_fedjax_mrl_{path.stem}_{sha256[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _beside(path.parent):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _beside(folder: pathlib.Path) -> Iterator[None]:
    """Lets a file import what lies beside it, and no file of another folder get it."""
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py"}
    names |= {path.name for path in folder.iterdir() if path.is_dir()}
    lies_here = lambda module: str(folder) in (getattr(module, "__file__", None) or "")
    hidden = {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] in names and not lies_here(module)
        if name.partition(".")[0] not in sys.stdlib_module_names
        if not name.startswith("fedjax_mrl")
    }
    for name in hidden:
        del sys.modules[name]
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if lies_here(sys.modules[name]) and name.partition(".")[0] in names:
                del sys.modules[name]
        sys.modules.update(hidden)


def _failed(text: str, error: Exception | SystemExit) -> CodeError:
    return CodeError(
        f"{text} cannot be imported: {_reason(error)}. Mend that, or name another file."
    )


def _reason(error: Exception | SystemExit) -> str:
    """What code raised, in a line; of one that ends the process that it did."""
    if isinstance(error, SystemExit):
        return "it ends the process (SystemExit)"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
