"""Text tasks: next-token prediction on text files and on TinyStories."""

from functools import partial
from pathlib import Path

import torch

from ..core.config import option
from ..core.dependencies import import_extra
from ..core.errors import TaskDataError
from ..core.text import counted
from .base import error_source
from .cache import CacheEntry, cache_key, cached
from .data_files import find_files, open_text, report
from .language_model import CorpusConfig, LanguageModel

_EXPECTED = "a text file in UTF-8, or a folder of *.txt files"
_TINY_STORIES = "roneneldan/TinyStories"
_TIMEOUT = 10  # seconds to wait for the Hugging Face Hub


class TextConfig(CorpusConfig):
    """Source, tokenizer, block length and splits of a text."""

    data_dir: Path = option(default=Path("data"), help="A text file in UTF-8, or a folder of *.txt files.")


class Text(LanguageModel):
    """Next-token prediction on any text: a UTF-8 file or a folder of *.txt files.

    The files of a folder are joined in the order of their names; folders in it are not searched. A byte order mark may
    state UTF-16 or UTF-32.
    """

    Config = TextConfig

    def __init__(self, config: TextConfig) -> None:
        text, self.notes = read_text(config.data_dir)
        with error_source(config.data_dir):
            super().__init__(text, config)


class TinyStoriesConfig(CorpusConfig):
    """Number of stories, tokenizer, block length and splits."""

    stories: int = option(default=10_000, help="Stories to use, from the first on [count].", at_least=1)


class TinyStories(LanguageModel):
    """TinyStories: next-token prediction on short stories in simple English (Eldan & Li 2023, arXiv:2305.07759).

    The stories are downloaded once into the cache folder, which needs `pip install "metaopt[datasets]"`.
    """

    Config = TinyStoriesConfig

    def __init__(self, config: TinyStoriesConfig) -> None:
        key = cache_key(_TINY_STORIES, config.stories)
        stored, _ = cached("tinystories", key, partial(_download_stories, config.stories))
        with error_source(f"{config.stories} stories of {_TINY_STORIES}"):
            super().__init__(stored["text"].numpy().tobytes().decode(), config)


def read_text(path: Path) -> tuple[str, tuple[str, ...]]:
    """The text of a file, or of the *.txt files of a folder, and what was ignored or converted, a line each.

    Raises:
        TaskDataError: there is no text, or a file cannot be read.
    """
    files, notes = _files(path)
    parts = list(map(_read, files))
    if len(parts) > 1 and (empty := sum(not part.strip() for part in parts)):
        notes.append(f"{path}: {counted(empty, 'empty file')} of {len(parts)}")
    reported, text = report(notes), "\n".join(parts)
    if not text.strip():
        raise TaskDataError(f"{path}: no text in it; expected {_EXPECTED}")
    return text, reported


def _files(path: Path) -> tuple[list[Path], list[str]]:
    """The files to read, and what a user must know of the search."""
    if not path.is_dir():
        return [path], []
    (found,) = find_files([path], [".txt"], deep=False)
    if not found.files:
        raise TaskDataError(f"{path} holds no *.txt files; expected {_EXPECTED}. Check data_dir")
    return found.files, found.notes(str(path))


def _read(path: Path) -> str:
    try:
        with open_text(path, _EXPECTED) as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise TaskDataError(
            f"{path} is not {error.encoding.upper()}: byte {error.start} (0x{error.object[error.start]:02x}) cannot be "
            f"decoded; expected {_EXPECTED}. Convert it, for example with iconv"
        ) from error
    except OSError as error:
        raise TaskDataError(f"cannot read {path}: {error.strerror}; expected {_EXPECTED}. Check data_dir") from error
    if (position := text.find("\0")) >= 0:
        raise TaskDataError(
            f"{path} contains a NUL character (number {position}): it is no text, or UTF-16 without a byte order mark; "
            f"expected {_EXPECTED}. Convert it, for example with iconv"
        )
    return text


def _download_stories(stories: int) -> CacheEntry:
    datasets, hub = (import_extra(name, "datasets") for name in ("datasets", "huggingface_hub"))
    try:
        hub.HfApi().dataset_info(_TINY_STORIES, timeout=_TIMEOUT)  # load_dataset would retry for minutes when offline
        rows = datasets.load_dataset(_TINY_STORIES, split="train", streaming=True).take(stories)
        text = "\n".join(row["text"] for row in rows)
    except Exception as error:  # the libraries below it raise many types
        raise TaskDataError(
            f"cannot download {_TINY_STORIES} ({type(error).__name__}: {error}). Connect to a network, or get the "
            "stories as a text file elsewhere and use the task `text` with data_dir=FILE"
        ) from error
    return CacheEntry({"text": torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)}, {})
