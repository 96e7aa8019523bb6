"""The code that is stored with a registered model, so that the model can be loaded without metaopt installed."""

import hashlib
import shutil
from importlib.metadata import EntryPoint, PackageNotFoundError, version
from pathlib import Path

from ..generative import GENERATIVE_OPTIMIZERS

_PACKAGE_ROOT = Path(__file__).parents[1]
_REQUIRED_PACKAGES = ("core", "weights", "nested", "generative")
"""Packages that are imported when an optimizer is loaded; paths relative to the metaopt package."""

_NOT_SHIPPED = ("generative/sources.py",)
"""Modules of these packages that load nothing, and need other packages."""

PINNED = ("torch", "numpy", "safetensors", "perceiver-pytorch", "jaxtyping", "pyyaml")
"""Dependencies that `requirements` pins to the installed version."""

_INIT_FILE = '"""The modules of metaopt that this optimizer needs, as they were when it was registered."""\n'


def shipped_sources() -> dict[str, Path]:
    """The source files that a registered optimizer needs, by their path relative to the package.

    The files import each other with relative imports, so the stored package can have another name.
    """
    files = [file for name in _REQUIRED_PACKAGES for file in sorted((_PACKAGE_ROOT / name).glob("*.py"))]
    named = {path.relative_to(_PACKAGE_ROOT).as_posix(): path for path in files}
    return {name: path for name, path in named.items() if name not in _NOT_SHIPPED}


def package_name() -> str:
    """Name of the stored package. It contains a digest of the code, so one process can load several versions."""
    digest = hashlib.sha256()
    for name, path in shipped_sources().items():
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return f"metaopt_{_version()}_{digest.hexdigest()[:12]}"


def copy_package(folder: Path) -> Path:
    """Copy the source files into a package in `folder`, and return the path of the package."""
    package = folder / package_name()
    for name, path in shipped_sources().items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, package / name)
    (package / "__init__.py").write_text(_INIT_FILE, encoding="utf-8")
    return package


def requirements(optimizer_name: str) -> list[str]:
    """The pip requirements of a registered optimizer, including the plug-in package that defines it, if any."""
    pinned = [f"{name}=={version(name).partition('+')[0]}" for name in PINNED]  # PyPI has no local versions (+cpu)
    plugins = {_requirement(entry_point) for entry_point in GENERATIVE_OPTIMIZERS.plugins(optimizer_name)}
    return [*pinned, "mlflow>=3.11,<4", *sorted(plugins - set(pinned))]


def _requirement(entry_point: EntryPoint) -> str:
    """The distribution and version of an entry point, or its top-level module if the distribution is unknown."""
    distribution = entry_point.dist
    return f"{distribution.name}=={distribution.version}" if distribution else entry_point.module.partition(".")[0]


def _version() -> str:
    try:
        return version("metaopt").replace(".", "_").replace("+", "_")
    except PackageNotFoundError:  # a source checkout that is not installed
        return "unreleased"
