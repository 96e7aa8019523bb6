"""`metaopt inspect` and `metaopt reports`, as a user calls them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from metaopt import workflows
from metaopt.tracking import start_run

from ..wan_files import TI2V_5B, TINY, write_sharded, write_sparse

CHOICE = ["--include", r"cross_attn\.(k|v)", "--exclude", "self_attn", "--layers", "2-3"]


@pytest.fixture(scope="module")
def files(module_store):
    """A small network in both namings, and one of full size, in the working directory."""
    write_sparse(Path("tiny.safetensors"), TINY.original())
    write_sparse(Path("tiny_diffusers.safetensors"), TINY.of_diffusers(), "BF16")
    write_sparse(Path("ti2v_5B.safetensors"), TI2V_5B.original())
    return module_store


def report_in(output: str) -> Path:
    (line,) = [line for line in output.splitlines() if line.startswith("report:")]
    return Path(line.split()[-1]).parent


def test_it_prints_blocks_a_comparison_and_the_targets_of_an_adapter(command_line, files):
    result = command_line("inspect", "tiny.safetensors", "--against", "tiny_diffusers.safetensors", *CHOICE)
    assert result.exit_code == 0, result.output
    for line in (
        "tiny.safetensors  –       1      123      4,776    F32     19.1 kB",
        "  cross_attn.{k,o,q,v}        16     weight 8×8, bias 8",
        "have the same tensors: 123 tensors with equal names and shapes (121 under another name), 123 of another dtype",
        "an adapter would change 4 matrices of tiny.safetensors:",
        "blocks.2-3.cross_attn.{k,v}  4      8×8            256",
    ):
        assert line in result.stdout
    assert {path.name for path in report_in(result.stdout).iterdir()} == {
        *("report.md", "summary.json", "summary.csv", "inputs.json"),
        *("keys.csv", "shapes.csv", "parity.csv", "targets.csv"),
    }


def test_pandas_reads_the_tables(command_line, files):
    place = report_in(command_line("inspect", "tiny.safetensors", *CHOICE).stdout)
    keys = pandas.read_csv(place / "keys.csv")
    assert dict(zip(keys["key"], map(tuple, keys["shape"].map(json.loads)), strict=True)) == TINY.original()
    shapes = pandas.read_csv(place / "shapes.csv")
    assert keys["weights"].sum() == shapes["weights"].sum() == 4776
    targets = pandas.read_csv(place / "targets.csv")
    assert list(targets["module"]) == [f"blocks.{layer}.cross_attn.{part}" for layer in (2, 3) for part in "kv"]


def test_equal_inspections_have_one_report_and_others_their_own(command_line, files):
    calls = [["tiny.safetensors"], ["tiny.safetensors"], ["tiny.safetensors", "--include", "ffn"]]
    first, again, other = (report_in(command_line("inspect", *call).stdout) for call in calls)
    assert first == again != other
    listed = json.loads(command_line("reports", "--json").stdout)["reports"]
    assert {str(first), str(other)} <= {each["path"] for each in listed}
    assert "Inspection of tiny.safetensors" in command_line("reports").stdout
    assert command_line("reports", "--report-dir", "nowhere").stdout == "no reports:  in nowhere/\n"


def test_without_a_folder_nothing_is_written(command_line, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = command_line("inspect", files / "tiny.safetensors", "--report-dir", "none", "--json")
    found = json.loads(result.stdout)
    assert (found["report"], found["networks"][0]["weights"]) == (None, 4776)
    assert not list(tmp_path.iterdir())


INVALID = {
    "nothing": ([], "nothing to inspect is given"),
    "no such file": (["gone.safetensors"], "cannot read gone.safetensors: No such file"),
    "no regular expression": (["tiny.safetensors", "--include", "attn("], "no regular expression"),
    "nothing matches": (["tiny.safetensors", "--include", "atn"], "matches none of the 46 matrices"),
    "layers out of range": (["tiny.safetensors", "--layers", "2-9"], "blocks has the layers 0-3"),
    "no such table": (["tiny.safetensors", "--aliases", "wam"], "did you mean wan?"),
    "no such run": ([f"runs:/{'0' * 32}/weights"], "cannot download"),
    "no such model": (["models:/nothing/1"], "cannot download"),
    "recordings": (["tiny.safetensors", "--report-dir", "trajectories"], "contains recordings or checkpoints"),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_calls_are_errors_in_one_line_and_write_nothing(command_line, files, name):
    arguments, message = INVALID[name]
    Path("trajectories/recorded/seed_0").mkdir(parents=True, exist_ok=True)
    Path("trajectories/recorded/.lock").touch()
    before = sorted(Path("reports").rglob("*"))
    result = command_line("inspect", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert sorted(Path("reports").rglob("*")) == before


def test_the_command_needs_no_torch_and_little_memory(files):
    """A network of 20 GB, in a process of its own, with the report."""
    code = (
        "import resource, sys\n"
        "from metaopt.cli import program\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = used()\n"
        "try:\n    program(['inspect', 'ti2v_5B.safetensors', '--include', 'cross_attn', '--quiet'])\n"
        "finally:\n"
        "    print(used() - before, *{'torch', 'numpy', 'mlflow', 'matplotlib'} & sys.modules.keys())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, capture_output=True, text=True)
    kilobytes, *heavy = done.stdout.split()
    assert not heavy, done.stderr
    assert int(kilobytes) < 12 * 1024


def test_the_files_of_a_run_are_inspected_and_a_run_receives_the_report(store, config, client):
    write_sharded(Path("network"), TINY.original(), 2)
    with start_run("any", config) as tracker:
        tracker.files(sorted(Path("network").iterdir()), "network")
        inspection = workflows.InspectConfig(path=f"runs:/{tracker.run_id}/network", include="cross_attn")
        found = workflows.inspect(inspection, tracker)
    assert [len(network.tensors) for network in found.inspection.networks] == [123]
    inputs = json.loads((found.report / "inputs.json").read_text())
    assert inputs["files"][0]["path"].startswith(f"runs:/{tracker.run_id}/network/diffusion_pytorch_model-00001")
    items = client.list_artifacts(tracker.run_id, f"reports/inspect/{found.report.name}")
    stored = {Path(item.path).name for item in items}
    assert stored == {path.name for path in found.report.iterdir()} | {"manifest.json"}
