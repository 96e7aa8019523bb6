"""A user's training function: found in a script, checked before it is called, and identified by its source."""

import functools
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ..core.errors import InvalidConfig, UnknownName
from ..core.registry import load_path, suggest
from ..core.text import reason_of, shown
from .trial import Trial

TrainFunction = Callable[[Trial], Any]
"""Trains once with `trial.optimizer`, and returns a metric, metrics by name, or a function that evaluates."""

NO_ARGUMENTS = "; a comparison gives a script no arguments (sys.argv has its name only), so give each a default"
"""What a script must know that reads its command line."""

_DEFAULT = "train"
_EXPECTED = "expected a function of one argument, written in Python, as in def train(trial)"


@dataclass(frozen=True)
class Training:
    """A training function and its source.

    Attributes:
        name: as the user named it.
        function: the function.
        file: its source file; None if it has none, as in an interpreter.
        path: name by which another process finds the function, as `load_training` takes it; None if it cannot.
        digest: sha256 of the source; None without a source.
    """

    name: str
    function: TrainFunction
    file: Path | None
    path: str | None
    digest: str | None

    @property
    def folder_name(self) -> str:
        """A name for folders: that of the file and of the function."""
        stem = self.file.stem if self.file else "training"
        return f"{stem}-{self.name.rpartition(':')[2].rpartition('.')[2].strip('<>')}"


def load_training(name: str) -> Training:
    """Import a training function, which runs the code of its module.

        load_training("my_script.py:train")

    Args:
        name: `script.py:function` or `package.module:function`; the function is `train` if none is named. The folder of
            a script is added to `sys.path`, as Python does when it runs the script.
    Raises:
        UnknownName: there is no such file, module or function.
        InvalidConfig: the import fails, or the function does not take a trial.
    """
    place, _, attribute = name.rpartition(":") if ":" in name else (name, "", "")
    attribute = attribute or _DEFAULT
    if not place.partition(":")[0].endswith(".py"):
        return _of_module(place, attribute)
    file = Path(place)
    if not file.is_file():
        raise UnknownName(f"there is no file {shown(place)}; expected a script, as in my_script.py:train")
    module = _import_script(file)
    if not hasattr(module, attribute):
        functions = [each for each, value in vars(module).items() if inspect.isfunction(value)]
        raise UnknownName(f"{place} has no {shown(attribute)}: {suggest(attribute, functions)}")
    return training_of(getattr(module, attribute), f"{file.name}:{attribute}", f"{file.resolve()}:{attribute}")


def _of_module(module: str, attribute: str) -> Training:
    path = f"{module}:{attribute}"
    try:
        return training_of(load_path(path), path, path)
    except UnknownName as error:
        if Path(f"{module}.py").is_file():
            raise UnknownName(
                f"{module} is no module that Python finds; for the script {module}.py give {module}.py:{attribute}"
            ) from error
        raise


def training_of(function: Any, name: str | None = None, path: str | None = None) -> Training:
    """A training function that is already imported.

    Args:
        name: as the user named it; that of the function by default.
        path: where another process can import it; by default its file and name, if it is not inside another function.
    Raises:
        InvalidConfig: the function does not take a trial.
    """
    name = name or str(getattr(function, "__qualname__", type(function).__name__))
    _check_callable(name, function)
    file = _source_file(function)
    qualified = getattr(function, "__qualname__", "<unnamed>")
    if path is None and file is not None and qualified.isidentifier():
        path = f"{file}:{qualified}"
    return Training(name, function, file, path, _digest(function, file))


@contextmanager
def as_script(file: Path | None) -> Iterator[None]:
    """Let a script see its own name as the only word of the command line inside the block."""
    before = sys.argv
    sys.argv = before if file is None else [str(file)]
    try:
        yield
    finally:
        sys.argv = before


def _import_script(file: Path) -> ModuleType:
    """Import a file as a module of its name, so that its `if __name__ == "__main__"` does not run."""
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    known = sys.modules.get(file.stem)
    taken = known is not None and getattr(known, "__file__", None) != str(file.resolve())
    name = f"_compared_{file.stem}" if taken else file.stem  # a script may have the name of a package, as test.py
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with as_script(file):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise InvalidConfig(
            f"cannot import {file} ({reason_of(error)}); what a script does when it starts belongs under "
            f'if __name__ == "__main__"{NO_ARGUMENTS}. --debug shows where'
        ) from error
    return module


def _check_callable(name: str, function: Any) -> None:
    """Check a function before it is called: the call of another one could do anything.

    Raises:
        InvalidConfig: it is not written in Python, does not train when it is called, or does not take a trial.
    """
    called = _unwrapped(function)
    if not (inspect.isfunction(called) or inspect.ismethod(called)):
        raise InvalidConfig(f"{shown(name)} is {type(function).__name__}; {_EXPECTED}")
    if inspect.isgeneratorfunction(called) or inspect.iscoroutinefunction(called):
        raise InvalidConfig(f"{shown(name)} is a generator or asynchronous; {_EXPECTED}, which trains at once")
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise InvalidConfig(f"{shown(name)} cannot be called with a trial: {error}; {_EXPECTED}") from error


def _unwrapped(function: Any) -> Any:
    """What partial functions, decorators and objects with `__call__` call in the end."""
    while isinstance(function, functools.partial) or hasattr(function, "__wrapped__"):
        function = function.func if isinstance(function, functools.partial) else function.__wrapped__
    methods = {name: method for kind in reversed(type(function).__mro__) for name, method in vars(kind).items()}
    return function.__call__ if inspect.isfunction(methods.get("__call__")) else function


def _source_file(function: Any) -> Path | None:
    try:
        file = inspect.getsourcefile(_unwrapped(function))
    except TypeError:
        return None
    return Path(file).resolve() if file and Path(file).is_file() else None


def _digest(function: Any, file: Path | None) -> str | None:
    """The sha256 of a script with the modules beside it that it has imported; else of the function's own text."""
    if file is None:
        try:
            return hashlib.sha256(inspect.getsource(_unwrapped(function)).encode()).hexdigest()
        except (OSError, TypeError):
            return None
    digest = hashlib.sha256()
    for path in sorted({file, *_modules_beside(file.parent)}):
        digest.update(f"{path.relative_to(file.parent)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _modules_beside(folder: Path) -> set[Path]:
    """Source files of imported modules in a folder, without installed packages."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    paths = (Path(file).resolve() for file in files if file and file.endswith(".py"))
    own = (path for path in paths if path.is_relative_to(folder) and "site-packages" not in path.parts)
    return {path for path in own if path.is_file()}  # some modules state a file that does not exist
