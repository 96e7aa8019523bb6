"""Folders of this user outside the working folder."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """The folder for files that can be deleted at any time: metaopt/ in `XDG_CACHE_HOME`, else in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "metaopt").expanduser()
