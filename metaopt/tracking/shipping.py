"""Our own code as a stand-alone package that travels with a registered model."""

import hashlib
import shutil
from importlib.metadata import EntryPoint, PackageNotFoundError, version
from pathlib import Path

from ..generative import GENERATIVE_OPTIMIZERS

_METAOPT = Path(__file__).parents[1]
_ROOMS = (
    "core/errors.py",
    "core/moved.py",
    "core/registry.py",
    "core/config.py",
    "core/rng.py",
    "weights",
    "generative",
)
_NEEDED = ("torch", "numpy", "safetensors", "perceiver-pytorch", "jaxtyping", "pyyaml")
_DOORKEEPER = '"""What metaopt needs to load and ask this optimizer, as it was when the optimizer was registered."""\n'


def shipped_sources() -> dict[str, Path]:
    """The modules that a registered optimizer needs, by their place in the package; their imports are relative."""
    rooms = [_METAOPT / room for room in _ROOMS]
    files = [path for room in rooms for path in (sorted(room.glob("*.py")) if room.is_dir() else [room])]
    return {path.relative_to(_METAOPT).as_posix(): path for path in files}


def package_name() -> str:
    """A name that changes with every change of the code, so that models of several versions live side by side."""
    digest = hashlib.sha256()
    for place, path in shipped_sources().items():
        digest.update(f"{place}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return f"metaopt_{_our_version()}_{digest.hexdigest()[:12]}"


def copy_package(folder: Path) -> Path:
    """Write the package into a folder; returns the package's own folder."""
    package = folder / package_name()
    for place, path in shipped_sources().items():
        (package / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, package / place)
    (package / "__init__.py").write_text(_DOORKEEPER, encoding="utf-8")
    return package


def requirements(optimizer_name: str) -> list[str]:
    """What pip must install beside the package: exact versions, and the plug-in of an optimizer from outside."""
    exact = [f"{name}=={version(name).partition('+')[0]}" for name in _NEEDED]  # +cpu names an index, not a version
    plugins = {_requirement(point) for point in GENERATIVE_OPTIMIZERS.plugins(optimizer_name)}
    return [*exact, "mlflow>=3.11,<4", *sorted(plugins - {None} - set(exact))]


def _requirement(point: EntryPoint) -> str:
    return f"{point.dist.name}=={point.dist.version}" if point.dist else point.module.partition(".")[0]


def _our_version() -> str:
    try:
        return version("metaopt").replace(".", "_").replace("+", "_")
    except PackageNotFoundError:  # a clone that runs without being installed
        return "unreleased"
