"""The file that the user names for a result: an existing one is replaced only with --overwrite."""

from pathlib import Path

from ..core.errors import InvalidConfig


def check_output(path: Path, overwrite: bool) -> None:
    """Check before the work begins that its result may be written to a path.

    Args:
        overwrite: whether an existing file may be replaced. A folder or a device never is.
    Raises:
        InvalidConfig: the path exists.
    """
    exists = path.exists() or path.is_symlink()
    if exists and not path.is_file():
        raise InvalidConfig(f"{path} is no regular file and is not replaced; choose another --output")
    if exists and not overwrite:
        raise InvalidConfig(f"{path} exists; choose another --output, or give --overwrite to replace it")
