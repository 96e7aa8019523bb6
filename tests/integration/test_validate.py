"""`metaopt validate`, as a user calls it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from metaopt.core.errors import InvalidConfig
from metaopt.operations.validation import validate, validation_record
from metaopt.operations.validation.records import sha256_of

GOLDEN = Path(__file__).parents[1] / "golden" / "v0_1_0"
MESSAGES = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
CHAT = json.dumps({"schema": "chat_sft_v1", "messages": MESSAGES}) + "\n"


@pytest.fixture(scope="module")
def files(module_store):
    """Recordings of an older version, a checkpoint, and a file of conversations."""
    shutil.copytree(GOLDEN / "trajectories", "trajectories")
    shutil.copytree(GOLDEN / "checkpoints", "checkpoints")
    Path("chat.jsonl").write_text(CHAT, encoding="utf-8")
    return module_store


@pytest.fixture
def damaged(files):
    """A copy of a trajectory with a bit of its weights flipped."""
    folder = Path("damaged/seed_0")
    shutil.copytree("trajectories/old/seed_0", folder, dirs_exist_ok=True)
    path = folder / "step_00000015.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 4
    path.write_bytes(raw)
    yield folder
    shutil.rmtree(folder.parent)


def test_it_prints_what_each_check_said_of_each_subject(command_line, files):
    result = command_line("validate", "old", "checkpoints/old", "chat.jsonl", "--level", "quick")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["trajectory", "file-headers", "file-names", "layout-shapes"]
    assert lines[1].split() == ["trajectories/old/seed_0", "ok", "ok", "ok"]
    assert any(line.split() == ["chat.jsonl", "ok"] for line in lines)
    assert lines[-1] == "result:  10 subjects passed at the level quick"


def test_a_finding_is_an_exit_code_and_says_where_and_what_to_do(command_line, damaged):
    assert command_line("validate", damaged, "--level", "quick").exit_code == 0
    result = command_line("validate", damaged, "chat.jsonl")
    assert result.exit_code == 1
    assert "result:  1 of 2 subjects failed at the level standard" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("  step_00000015.safetensors: ")]
    assert line.endswith("its contents do not match the sha256 in its header; copy or download it again")
    assert command_line("validate", damaged, "--quiet").exit_code == 1
    assert command_line("validate", damaged, "--quiet").stdout == ""


def test_scripts_get_one_document_with_versions_and_findings(command_line, damaged):
    result = command_line("validate", damaged, "chat.jsonl", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["command"], found["level"], found["failed"], found["records"]) == ("validate", "standard", True, [])
    folder, chat = found["subjects"]
    assert folder["failed"]["digests"]["findings"][0]["where"] == "step_00000015.safetensors"
    assert folder["passed"]["file-headers"] == 1
    assert chat["passed"] == {"line-schemas": 1, "line-contents": 1}
    assert chat["not_checked"] == {"packed-masks": "it has no packed examples"}


def test_held_out_runs_that_leak_fail(command_line, files):
    shutil.copytree("trajectories/old/seed_1", "elsewhere/seed_9")
    result = command_line("validate", "trajectories/old", "--level", "deep", "--against", "elsewhere")
    assert result.exit_code == 1
    assert "it has the same weights and facts as elsewhere/seed_9. Results on it say nothing" in result.stdout
    assert "1 of 4 subjects failed" in result.stdout
    clean = command_line("validate", "old/seed_0", "--level", "deep", "--against", "trajectories/old/seed_2,chat.jsonl")
    assert clean.exit_code == 0, clean.output
    shutil.rmtree("elsewhere")


def test_records_are_written_on_request_beside_what_passed(command_line, files, damaged):
    before = sorted(Path().rglob("*validated*"))
    command_line("validate", "old/seed_0", "chat.jsonl", damaged)
    assert sorted(Path().rglob("*validated*")) == before
    result = command_line("validate", "old/seed_0", "chat.jsonl", damaged, "--record")
    assert result.exit_code == 1
    places = [Path("chat.jsonl.validated.json"), Path("trajectories/old/seed_0/validated.json")]
    assert sorted(Path().rglob("*validated*")) == places
    record = json.loads(places[0].read_text("utf-8"))["validated"]
    assert (record["level"], record["checks"]) == ("standard", {"line-schemas": 1, "line-contents": 1})
    assert record["sha256"] == subprocess.run(["sha256sum", "chat.jsonl"], capture_output=True, text=True).stdout[:64]
    assert record["time"].endswith("+00:00")
    report = validate(["chat.jsonl", "old/seed_0", damaged], "quick")
    _, folder, broken = report.subjects
    stored = json.loads(places[1].read_text("utf-8"))["validated"]["sha256"]
    assert stored == validation_record(report, folder)["validated"]["sha256"]
    names = [*sorted(path.name for path in folder.path.glob("*.safetensors")), "task.json"]
    listed = subprocess.run(["sha256sum", *names], capture_output=True, cwd=folder.path).stdout
    assert stored == subprocess.run(["sha256sum"], input=listed, capture_output=True).stdout[:64].decode()
    assert sha256_of(broken) != sha256_of(folder)
    failed = validate([damaged])
    with pytest.raises(InvalidConfig, match="has not passed"):
        validation_record(failed, failed.subjects[0])
    for place in places:
        place.unlink()


INVALID = {
    "nothing": ([], "nothing to validate is given"),
    "no such path": (["trajectorys"], "nothing to validate at 'trajectorys': did you mean trajectories?"),
    "nothing inside": (["empty"], "nothing to validate in empty; expected snapshots"),
    "no such level": (["old", "--level", "depp"], "did you mean deep?"),
    "a snapshot alone": (
        ["trajectories/old/seed_0/step_00000010.safetensors"],
        "a part of something; validate its folder",
    ),
    "no such tokenizer": (["packed.jsonl", "--tokenizer", "gpt2"], "expected bytes, a file"),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_calls_are_errors_in_one_line(command_line, files, name):
    arguments, message = INVALID[name]
    Path("empty").mkdir(exist_ok=True)
    Path("packed.jsonl").write_text(
        '{"schema": "packed_v1", "input_ids": [], "labels": [], "conversations": [], "end": ""}\n', "utf-8"
    )
    result = command_line("validate", *arguments)
    Path("packed.jsonl").unlink()
    assert result.exit_code == 1
    assert message in result.stdout + result.stderr
    assert "Traceback" not in result.output


def test_quick_checks_need_no_torch(files):
    code = (
        "import sys\nfrom metaopt.cli import program\n"
        "try:\n    program(['validate', 'trajectories', 'checkpoints', 'chat.jsonl', '--level', 'quick', '--quiet'])\n"
        "finally:\n    print(*{'torch', 'numpy', 'mlflow', 'matplotlib'} & sys.modules.keys())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, capture_output=True, text=True)
    assert done.stdout.split() == [], done.stderr
    assert done.returncode == 0


def test_code_that_a_file_names_is_not_imported(files, tmp_path, monkeypatch):
    """A trajectory of a network of the user's own is not measured, unless the user trusts it."""
    from metaopt.weights.files import read_tensors, write_tensors

    folder = tmp_path / "own" / "seed_0"
    shutil.copytree(GOLDEN / "trajectories" / "frozen" / "seed_0", folder)
    for path in folder.glob("*.safetensors"):
        kind = "frozen" if path.stem == "frozen" else "snapshot"
        tensors, facts = read_tensors(path, kind)
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        facts["run"]["target_model"] = "my_evil_module:build"
        write_tensors(path, tensors, kind, facts)
    (tmp_path / "my_evil_module.py").write_text("raise SystemExit('imported')\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    (outcome,) = [each for each in validate([folder], "deep").outcomes if each.check == "measured-losses"]
    assert outcome.result == "not checked"
    assert "a file must not run code" in outcome.reason
    assert "my_evil_module" not in sys.modules
