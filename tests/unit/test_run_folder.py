"""Run names stay in their folder, and one process at a time uses it."""

import subprocess
import sys

import pytest

from metaopt.core.errors import InvalidConfig, RunNameError
from metaopt.trajectories import check_run_name, claim_run_folder

LOCK = """
import sys, time
from pathlib import Path
from metaopt.trajectories import claim_run_folder
with claim_run_folder(Path(sys.argv[1]), "seed_*"):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a/b",
        "a\\b",
        "..",
        ".",
        "a..b",
        " a",
        "a ",
        ".hidden",
        "-x",
        "a\nb",
        "a\x00b",
        "a\x7f",
        "x" * 101,
        "\udce9",
    ],
)
def test_invalid_names_are_rejected(name):
    with pytest.raises(RunNameError, match="cannot be a folder"):
        check_run_name(name)


@pytest.mark.parametrize("name", ["cnn", "cnn lr=1e-3", "cnn_0.5", "Zahl-é", "x" * 100])
def test_valid_names_are_returned(name):
    assert check_run_name(name) == name


def test_a_taken_name_is_rejected_and_the_message_names_the_flags(tmp_path):
    with claim_run_folder(tmp_path / "a", "seed_*") as claimed:
        (claimed.path / "seed_0").mkdir()
    with pytest.raises(RunNameError, match=r"taken.*--resume.*--overwrite"), claim_run_folder(tmp_path / "a", "seed_*"):
        pass
    with claim_run_folder(tmp_path / "a", "seed_*", resume=True):
        assert (claimed.path / "seed_0").is_dir()


def test_overwriting_removes_only_entries_of_this_kind_of_run(tmp_path):
    folder = tmp_path / "a"
    (folder / "seed_0").mkdir(parents=True)
    (folder / "seed_0" / "x").touch()
    (folder / "mine.txt").touch()
    with claim_run_folder(tmp_path / "a", "seed_*", overwrite=True) as claimed:
        assert (folder / "seed_0").exists(), "something can still refuse the run"
        claimed.clear()
        assert not (folder / "seed_0").exists()
        assert (folder / "mine.txt").exists()


def test_resuming_a_missing_run_is_rejected_and_leaves_no_folder(tmp_path):
    with (
        pytest.raises(RunNameError, match="nothing to resume"),
        claim_run_folder(tmp_path / "a", "seed_*", resume=True),
    ):
        pass
    assert not (tmp_path / "a").exists()


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    with (
        pytest.raises(InvalidConfig, match="both"),
        claim_run_folder(tmp_path / "a", "seed_*", resume=True, overwrite=True),
    ):
        pass


def test_a_name_in_use_is_rejected_until_its_process_is_killed(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "locked\n"
            with (
                pytest.raises(RunNameError, match="in use"),
                claim_run_folder(tmp_path / "a", "seed_*", overwrite=True),
            ):
                pass
        finally:
            process.kill()
    with claim_run_folder(tmp_path / "a", "seed_*"):
        pass


def test_temporary_files_of_a_killed_process_are_removed(tmp_path):
    folder = tmp_path / "a"
    (folder / "seed_0").mkdir(parents=True)
    for name in (
        ".last.safetensors.x1.part",
        "seed_0/.step_1.safetensors.x2.part",
        "seed_0/step_0.part",
        "seed_0/kept",
    ):
        (folder / name).write_text("x", encoding="utf-8")
    with claim_run_folder(folder, "seed_*", resume=True):
        left = sorted(path.name for path in folder.rglob("*") if path.is_file())
    assert left == [".lock", "kept", "step_0.part"]
