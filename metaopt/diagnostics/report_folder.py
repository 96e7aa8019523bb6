"""Report folders: `reports/<tool>/<tag>/`, written whole or not at all, and logged to a run where there is one.

from metaopt.diagnostics.report_folder import Inputs, Report, write_report

report = Report("norms", "mlp", "Norms of an MLP", what="Norms of all weights.", why="To see which layers grow.",
                how_to_read="A norm of 0 is a layer that does nothing.", summary={"layers": 2},
                rows=(["layer", "norm"], [["0", 1.5], ["1", 0.0]]), inputs=Inputs(seeds=(0,)))
print(write_report(report))  # reports/norms/mlp
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.documents import Section, csv_text, json_text, markdown
from ..core.errors import FileFormatError, InvalidConfig, StorageError
from ..core.text import printable, shown
from ..core.tracker import Tracker
from ..weights.regular import opened, read_text
from ..weights.safetensors_header import read_safetensors_header

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORTS = Path("reports")
"""Folder of all report folders, unless the user chooses another one."""

SCHEMA = 1
_INPUTS, _SUMMARY, _REPORT = "inputs.json", "summary.json", "report.md"
_LARGE = 16 * 2**20  # a file above this size is not read for its digest [bytes]
_LOCK, _OUTPUTS = ".lock", ("seed_*", "*_epoch_*.safetensors")  # in the folder of a recording or a meta-training

Rows = tuple[list[str], list[list[Any]]]
"""Column names, and rows of values."""


class InputFile(NamedTuple):
    """A file that a report is about.

    Attributes:
        path: as the user named it.
        size: [bytes].
        sha256: digest.
        covers: the bytes of the digest, in words.
    """

    path: str
    size: int
    sha256: str
    covers: str

    @classmethod
    def of(cls, path: Path) -> "InputFile":
        """Describe a file by the digest of its contents; a large one of safetensors by that of its header.

        Raises:
            FileFormatError: the file cannot be read, or is large and not safetensors.
        """
        with opened(path, "a file") as (file, size):
            if size <= _LARGE:
                return cls(str(path), size, hashlib.sha256(file.read()).hexdigest(), "the file")
        return cls.of_header(str(path), size, hashlib.sha256(read_safetensors_header(path).raw).hexdigest())

    @classmethod
    def of_header(cls, path: str, size: int, sha256: str) -> "InputFile":
        """Describe a file of safetensors by the digest of its header."""
        return cls(path, size, sha256, "the header; the tensors were not read")


@dataclass(frozen=True)
class Inputs:
    """What a report was made from: files, a configuration, and random seeds."""

    files: Sequence[InputFile] = ()
    configuration: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] = ()


@dataclass(frozen=True)
class Report:
    """The contents of a report folder.

    Args:
        tool: what made it, such as `inspect`; a folder.
        tag: the run or the file that it is about; the folder in that.
        title: heading of `report.md`.
        what, why, how_to_read: paragraphs of Markdown: what was measured, what for, and what the numbers mean.
        summary: the results as JSON values: `summary.json`.
        rows: the main results as a table: `summary.csv`.
        inputs: `inputs.json`.
        sections: the results in Markdown.
        tables: further tables, by the name of their CSV file.
        figures: draw a figure each, by the name of its files.
    """

    tool: str
    tag: str
    title: str
    what: str
    why: str
    how_to_read: str
    summary: Mapping[str, Any]
    rows: Rows
    inputs: Inputs
    sections: Sequence[Section] = ()
    tables: Mapping[str, Rows] = field(default_factory=dict)
    figures: "Mapping[str, Callable[[], Figure]]" = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that tool and tag can be names of folders.

        Raises:
            InvalidConfig: one cannot.
        """
        for name in (self.tool, self.tag):
            if not name or Path(name).name != name or name.startswith(".") or not name.isprintable():
                raise InvalidConfig(
                    f"{shown(name)} cannot be the name of a report; expected a plain name, such as run-1"
                )

    def files(self) -> dict[str, bytes]:
        """The contents of each file of the folder, by name."""
        inputs = {"schema": SCHEMA, "tool": self.tool, "title": self.title, "created": _now(), **_inputs(self.inputs)}
        texts = {
            _REPORT: self._markdown(),
            _SUMMARY: json_text(self.summary),
            "summary.csv": csv_text(*self.rows),
            _INPUTS: json_text(inputs),
            **{f"{name}.csv": csv_text(*table) for name, table in self.tables.items()},
        }
        return {**{name: text.encode() for name, text in texts.items()}, **dict(self._drawn())}

    def _markdown(self) -> str:
        told = {"What": self.what, "Why": self.why, "How to read it": self.how_to_read}
        opening = [Section(title, (text,)) for title, text in told.items()]
        return markdown(self.title, [], [*opening, *self.sections])

    def _drawn(self) -> Iterator[tuple[str, bytes]]:
        for name, draw in self.figures.items():
            from ..figures import rendered  # Matplotlib takes seconds to import, and most reports have no figures

            yield from ((f"{name}.{ending}", content) for ending, content in rendered(draw()).items())


def write_report(report: Report, folder: Path = REPORTS, tracker: Tracker | None = None) -> Path:
    """Write a report folder, and log its files to a run.

    A report of the same tool and tag is replaced.

    Args:
        folder: contains a folder for each tool.
        tracker: the run, if there is one; its artifacts are in `reports/<tool>/<tag>`.
    Returns: the folder of the report.
    Raises:
        StorageError: it cannot be written, another folder has its name, or `folder` contains recordings or checkpoints.
    """
    _refuse_training_outputs(folder)
    place = folder / report.tool / report.tag
    if place.exists() and not (place / _INPUTS).is_file():
        raise StorageError(f"{place} exists and is no report; move it, or choose another folder of reports")
    _replace(place, report.files())
    if tracker is not None:
        tracker.files(sorted(place.iterdir()), f"reports/{report.tool}/{report.tag}")
    return place


class ListedReport(NamedTuple):
    """A report folder: its tool and tag, its title and when it was made, and its path."""

    tool: str
    tag: str
    title: str
    created: str
    path: Path


def list_reports(folder: Path = REPORTS) -> list[ListedReport]:
    """The reports in a folder, newest first; what is no report of metaopt is left out."""
    found = [_listed(path.parent) for path in folder.glob(f"*/*/{_INPUTS}") if not path.parent.name.startswith(".")]
    return sorted((each for each in found if each), key=lambda each: (each.created, each.path), reverse=True)


def tag_of(name: str, inputs: Inputs) -> str:
    """A tag for a report about files: a name, and a digest of the inputs, so that equal inputs have one report."""
    digest = hashlib.sha256(json_text(_inputs(inputs)).encode()).hexdigest()
    plain = "".join(each if each.isalnum() or each in "-_." else "-" for each in name).strip("-.")[:60]
    return f"{plain or 'report'}-{digest[:8]}"


def _listed(place: Path) -> ListedReport | None:
    try:
        document = json.loads(read_text(place / _INPUTS, "the inputs of a report"))
        title, created = document["title"], document["created"]
        datetime.fromisoformat(created)
    except (FileFormatError, ValueError, TypeError, LookupError, RecursionError):
        return None
    return ListedReport(place.parent.name, place.name, printable(str(title)), created, place)


def _refuse_training_outputs(folder: Path) -> None:
    """Reports are not mixed with what trainings write, because readers of recordings take all that is there."""
    here = folder.resolve()
    below = here.iterdir() if here.is_dir() else ()
    found = next((each for each in (here, *here.parents, *below) if _is_of_a_training(each)), None)
    if found is not None:
        raise StorageError(
            f"cannot write reports to {folder}: {found} contains recordings or checkpoints; choose another folder"
        )


def _is_of_a_training(folder: Path) -> bool:
    """Whether a folder is that of a recording or of a meta-training."""
    return (folder / _LOCK).exists() and any(True for pattern in _OUTPUTS for _ in folder.glob(pattern))


def _replace(place: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder under a hidden name and rename it, so that it is complete or not there."""
    temporary: Path | None = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".part", dir=place.parent))
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        for name, content in files.items():
            with (new / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if place.exists():
            place.rename(old)
        try:
            new.rename(place)
        except OSError:
            old.rename(place)
            raise
    except OSError as error:
        raise StorageError(
            f"could not write {place}: {error}; free some space or choose another folder of reports"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _inputs(inputs: Inputs) -> dict[str, Any]:
    return {
        "files": [each._asdict() for each in inputs.files],
        "configuration": dict(inputs.configuration),
        "random_seeds": [*inputs.seeds],
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
