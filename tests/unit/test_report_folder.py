"""Report folders are written whole or not at all, beside the outputs of trainings and never in them."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from metaopt.core.documents import Section
from metaopt.core.errors import FileFormatError, InvalidConfig, StorageError
from metaopt.core.tracker import SilentTracker
from metaopt.diagnostics.report_folder import InputFile, Inputs, Report, list_reports, tag_of, write_report
from metaopt.figures import line_chart

from ..wan_files import TI2V_5B, write_sparse

REPORT = Report(
    tool="norms",
    tag="mlp",
    title="Norms of an MLP",
    what="Norms of all weights.",
    why="To see which layers grow.",
    how_to_read="A norm of 0 is a layer that does nothing.",
    summary={"layers": 2, "worst": float("nan")},
    rows=(["layer", "norm"], [["0", 1.5], ["a, b", None]]),
    inputs=Inputs([InputFile("x.safetensors", 3, "ab", "the file")], {"lr": 0.1}, seeds=(0, 7)),
    sections=[Section("Layers", ("All of them.", (["layer"], [["0"]])))],
    tables={"keys": (["key"], [["w"]])},
)
FILES = {"inputs.json", "keys.csv", "report.md", "summary.csv", "summary.json"}


def contents(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()}


def test_a_report_says_what_why_and_how_to_read_it(tmp_path):
    place = write_report(REPORT, tmp_path)
    assert place == tmp_path / "norms" / "mlp"
    assert contents(place).keys() == FILES
    text = (place / "report.md").read_text(encoding="utf-8")
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == ["# Norms of an MLP", "## What", "## Why", "## How to read it", "## Layers"]
    assert "| layer |\n| --- |\n| 0 |" in text
    assert (place / "summary.csv").read_text() == 'layer,norm\n0,1.5\n"a, b",\n'
    assert json.loads((place / "summary.json").read_text()) == {"layers": 2, "worst": None}
    inputs = json.loads((place / "inputs.json").read_text())
    assert inputs["files"] == [{"path": "x.safetensors", "size": 3, "sha256": "ab", "covers": "the file"}]
    assert (inputs["configuration"], inputs["random_seeds"]) == ({"lr": 0.1}, [0, 7])


def test_figures_are_files_of_the_report(tmp_path):
    chart = line_chart("Norm", "one layer", "step", "norm", [0, 1], [{"a": 1.0}, {"a": 2.0}])
    place = write_report(replace(REPORT, figures={"norms": lambda: chart}), tmp_path)
    assert contents(place).keys() == FILES | {"norms.svg", "norms.png"}


def test_a_report_replaces_that_of_the_same_tag_and_leaves_nothing_else(tmp_path):
    write_report(REPORT, tmp_path)
    write_report(replace(REPORT, tables={}, title="Again"), tmp_path)
    assert [path.name for path in (tmp_path / "norms").iterdir()] == ["mlp"]
    assert contents(tmp_path / "norms" / "mlp").keys() == FILES - {"keys.csv"}
    assert [each.title for each in list_reports(tmp_path)] == ["Again"]


@pytest.mark.parametrize("fails", ["fsync", "rename"])
def test_a_report_that_cannot_be_written_leaves_the_older_one(tmp_path, monkeypatch, fails):
    place = write_report(REPORT, tmp_path)
    before = contents(place)

    def full(*_):
        raise OSError(28, "No space left on device")

    rename = Path.rename
    if fails == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "rename", lambda path, target: (full if path.name == "new" else rename)(path, target))
    with pytest.raises(StorageError, match="No space left on device"):
        write_report(replace(REPORT, title="Another"), tmp_path)
    assert contents(place) == before
    assert [path.name for path in (tmp_path / "norms").iterdir()] == ["mlp"]


def test_a_folder_that_is_no_report_is_not_replaced(tmp_path):
    (tmp_path / "norms" / "mlp").mkdir(parents=True)
    (tmp_path / "norms" / "mlp" / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match="exists and is no report"):
        write_report(REPORT, tmp_path)
    assert contents(tmp_path / "norms" / "mlp") == {"mine.txt": b"mine"}


@pytest.mark.parametrize("place", [".", "run", "run/seed_0/reports"])
@pytest.mark.parametrize("output", ["seed_0/step_00000000.safetensors", "PerceiverOptimizer_epoch_0.safetensors"])
def test_reports_are_not_mixed_with_the_outputs_of_trainings(tmp_path, place, output):
    (tmp_path / "run" / output).parent.mkdir(parents=True)
    (tmp_path / "run" / output).touch()
    (tmp_path / "run" / ".lock").touch()
    with pytest.raises(StorageError, match=r"contains recordings or checkpoints; choose another folder"):
        write_report(REPORT, tmp_path / place)
    assert write_report(REPORT, tmp_path / "reports").is_dir()


@pytest.mark.parametrize("tag", ["", ".", "..", "../x", "a/b", ".hidden", "a\nb"])
def test_a_tag_is_a_plain_name(tag):
    with pytest.raises(InvalidConfig, match="cannot be the name of a report"):
        replace(REPORT, tag=tag)


@pytest.mark.parametrize("name", ["model", "a b/c", "..", "\x1b[31m", "ü" * 500, ""])
def test_tags_are_made_of_any_name_and_differ_with_the_inputs(name):
    tag = tag_of(name, REPORT.inputs)
    assert replace(REPORT, tag=tag).tag == tag == tag_of(name, REPORT.inputs)
    assert tag != tag_of(name, replace(REPORT.inputs, seeds=(1,)))
    assert len(tag) < 80


def test_the_digest_of_a_file_covers_all_of_it_or_its_header(tmp_path):
    small = tmp_path / "small.txt"
    small.write_text("abc")
    assert InputFile.of(small) == (str(small), 3, hashlib.sha256(b"abc").hexdigest(), "the file")
    large = write_sparse(tmp_path / "large.safetensors", TI2V_5B.original())
    found = InputFile.of(large)
    assert (found.size, found.covers) == (large.stat().st_size, "the header; the tensors were not read")
    with pytest.raises(FileFormatError, match="cannot read"):
        InputFile.of(tmp_path / "gone")


def test_a_run_receives_the_files(tmp_path):
    received = []

    class Listening(SilentTracker):
        def files(self, paths, folder):
            received.append(({path.name for path in paths}, folder))

    write_report(REPORT, tmp_path, Listening())
    assert received == [(FILES, "reports/norms/mlp")]


def test_reports_are_listed_newest_first_and_damaged_ones_left_out(tmp_path, monkeypatch):
    times = iter(["2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"])
    monkeypatch.setattr("metaopt.diagnostics.report_folder._now", lambda: next(times))
    for tag in ("older", "newer"):
        write_report(replace(REPORT, tag=tag, title=f"{tag}\x1b[31m"), tmp_path)
    for name, text in {"a": "[" * 10_000, "b": "[]", "c": '{"title": 1, "created": 2}', ".d.part": "{}"}.items():
        (tmp_path / "norms" / name).mkdir()
        (tmp_path / "norms" / name / "inputs.json").write_text(text)
    assert [(each.tag, each.title) for each in list_reports(tmp_path)] == [
        ("newer", r"newer\x1b[31m"),
        ("older", r"older\x1b[31m"),
    ]
    assert list_reports(tmp_path / "none") == []
