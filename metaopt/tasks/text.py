"""Text from files."""

from pathlib import Path

from ..core.config import option
from ..core.errors import TaskDataError
from .base import naming
from .language_model import CorpusConfig, LanguageModel

_EXPECTED = "expected a text file in UTF-8, or a folder of *.txt files"


class TextConfig(CorpusConfig):
    """Where the text lies and what it is cut into."""

    data_dir: Path = option(default=Path("data"), help="A text file in UTF-8, or a folder of *.txt files.")


class Text(LanguageModel):
    """Say how any text goes on; give a file or a folder of *.txt files, which are read in the order of their names."""

    Config = TextConfig

    def __init__(self, config: TextConfig) -> None:
        text = "\n".join(_read(path) for path in _files(config.data_dir))
        with naming(config.data_dir):
            if not text.strip():
                raise TaskDataError(f"no text in it; {_EXPECTED}")
            super().__init__(text, config)


def _files(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    files = sorted(path for path in place.glob("*.txt") if path.is_file())
    if not files:
        raise TaskDataError(f"{place} holds no *.txt files; {_EXPECTED}. Check data_dir")
    return files


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise TaskDataError(
            f"{path} is not UTF-8: byte {error.start} (0x{error.object[error.start]:02x}) cannot be decoded; "
            f"{_EXPECTED}. Convert it, for example with iconv"
        ) from error
    except OSError as error:
        raise TaskDataError(f"cannot read {path}: {error.strerror}; {_EXPECTED}. Check data_dir") from error
