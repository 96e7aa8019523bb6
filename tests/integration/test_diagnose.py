"""`metaopt diagnose` compares networks by probes, and writes a report that is also in the run of the trajectory."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import pandas
import pytest
import torch
from PIL import Image

from metaopt import workflows
from metaopt.core.errors import InvalidConfig, UnknownName
from metaopt.generative.files import load_optimizer
from metaopt.targets import get_target_model
from metaopt.tasks import load_task
from metaopt.tasks.measure import mean_loss
from metaopt.tracking import connect
from metaopt.trajectories import Trajectory
from metaopt.trajectories.recording_file import RUN_FILE
from metaopt.weights.model_files import load_model_weights

TRAINED = "trajectories/digits/seed_0"
STEPS = [0, 5, 10, 15, 20, 25, 30]


def in_words(arguments):
    return [word for name, value in arguments.items() for word in (f"--{name}", value)]


@pytest.fixture(scope="module")
def recorded(command_line):
    """A trajectory with its run, and others: of another width, and of one snapshot."""
    base = ["train-target", "--target-model", "MLP", "--snapshot-every", "5", "--quiet"]
    for name, more in {
        "digits": ["--widths", "16", "--epochs", "2"],
        "wider": ["--widths", "17", "--epochs", "1"],
        "part": ["--widths", "16", "--epochs", "1", "--space", "layers.1"],
        "twin": ["--widths", "16", "--epochs", "1", "--seed", "1"],
    }.items():
        result = command_line(*base, "--run-name", name, *more)
        assert result.exit_code == 0, result.output
    folder = Path("trajectories/single/seed_0")
    folder.mkdir(parents=True)
    shutil.copy(Trajectory.open(TRAINED).snapshots[0].path, folder)
    return Trajectory.open(TRAINED)


@pytest.fixture(scope="module")
def diagnosed(command_line, recorded):
    """The result of all probes on the first and the last snapshot."""
    result = command_line("diagnose", "all", "--trajectory", TRAINED, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def network_at(trajectory, index):
    model = get_target_model("MLP", **trajectory.run["target_config"])
    load_model_weights(model, trajectory.snapshots[index].path)
    return model


def test_the_values_are_those_of_both_networks(diagnosed, recorded):
    first, last = recorded.weights(0), recorded.weights(-1)
    matrices = [each.name for each in recorded.layout.tensors if len(each.shape) == 2]
    before, after = (
        torch.cat([recorded.layout.unflatten(each)[name].flatten() for name in matrices]) for each in (first, last)
    )
    probes = diagnosed["probes"]
    assert probes["delta-budgets"]["change"] == pytest.approx(
        ((after - before).norm() / before.norm()).item(), rel=1e-5
    )
    task = load_task("digits")
    whole = [task.splits["validation"][:]]
    assert probes["loss-line"]["loss_after"] == pytest.approx(mean_loss(network_at(recorded, -1), task, whole), rel=0.1)
    assert diagnosed["before"] == f"step 0 of {TRAINED}"
    assert diagnosed["after"] == f"step 30 of {TRAINED}"
    assert diagnosed["not_applicable"].keys() == {
        *("attention-logits", "embedding-drift", "null-text-drift", "prompt-grid")
    }


def test_the_report_has_tables_figures_and_inputs(diagnosed, recorded):
    place = Path(diagnosed["report"])
    text = (place / "report.md").read_text(encoding="utf-8")
    for name in diagnosed["probes"]:
        assert f"\n## {name}\n" in text
        assert len(pandas.read_csv(place / f"{name}.csv"))
    rows = pandas.read_csv(place / "summary.csv")
    assert {(row.probe, row.value) for row in rows.itertuples()} == {
        (probe, value) for probe, values in diagnosed["probes"].items() for value in values
    }
    for figure in ("loss-line-loss", "spectrum-singular-values"):
        assert f"]({figure}.png)" in text
        with Image.open(place / f"{figure}.png") as image:
            assert image.size[0] > 500
    inputs = json.loads((place / "inputs.json").read_text())
    assert [file["path"] for file in inputs["files"]] == [str(recorded.snapshots[index].path) for index in (0, -1)]
    assert inputs["configuration"]["probes"] == ["all"]


def test_the_run_of_the_trajectory_has_a_copy(diagnosed):
    run_id = json.loads(Path(TRAINED, RUN_FILE).read_text())["run_id"]
    assert diagnosed["run_id"] == run_id
    place = Path(diagnosed["report"])
    found = {Path(each.path).name for each in connect().list_artifacts(run_id, f"reports/diagnose/{place.name}")}
    assert found == {path.name for path in place.iterdir()} | {"manifest.json"}


def test_snapshots_by_their_steps(recorded, command_line):
    words = ["diagnose", "weight-norms", "spectrum", "--trajectory", TRAINED, "--from-step", "10", "--to-step", "20"]
    found = json.loads(command_line(*words, "--json").stdout)
    assert [*found["probes"]] == ["weight-norms", "spectrum"]
    config = workflows.DiagnoseConfig(probes="weight-norms", trajectory=TRAINED, from_step=20, to_step=10)
    back = workflows.diagnose(config).diagnosis.results["weight-norms"].values
    ratio = found["probes"]["weight-norms"]["norm_ratio"]
    assert back["norm_ratio"] == pytest.approx(1 / ratio)


def test_a_network_of_which_a_part_was_trained(recorded):
    folder = Path("trajectories/part/seed_0")
    diagnosed = workflows.diagnose(workflows.DiagnoseConfig(probes="delta-budgets,loss-line", trajectory=folder))
    trained, frozen = diagnosed.diagnosis.results["delta-budgets"].rows
    assert trained["change"] > 0
    assert frozen["change"] == 0.0
    losses, task = diagnosed.diagnosis.results["loss-line"].values, load_task("digits")
    assert losses["loss_after"] < losses["loss_before"] < 2 * task.baseline_loss
    files = json.loads((diagnosed.report / "inputs.json").read_text())["files"]
    assert [Path(file["path"]).name for file in files] == [
        "step_00000000.safetensors", "frozen.safetensors", "step_00000015.safetensors",
    ]  # fmt: skip


def test_another_trajectory_is_before(recorded, command_line):
    found = json.loads(
        command_line(
            "diagnose", "loss-line", "--trajectory", TRAINED, "--against", "trajectories/twin/seed_1", "--json"
        ).stdout
    )
    assert found["before"] == "step 15 of trajectories/twin/seed_1"
    assert found["probes"]["loss-line"]["barrier"] > 0


def test_a_nowcast_is_after(recorded):
    config = workflows.DiagnoseConfig(
        probes="delta-budgets", trajectory=TRAINED, from_step=20, nowcast="builtin", horizon=10
    )
    diagnosis = workflows.diagnose(config).diagnosis
    assert diagnosis.after == "nowcast by builtin for step 30"
    optimizer = load_optimizer("builtin")
    indices = range(max(0, 5 - optimizer.history), 5)
    history = torch.stack([recorded.weights(index) for index in indices])[None]
    times = torch.tensor([[float(STEPS[index]) for index in indices]])
    predicted = optimizer.predict(history, times, torch.tensor([30.0]), recorded.layout)[0]
    names = [each.name for each in recorded.layout.tensors if len(each.shape) == 2]
    before, after = (
        torch.cat([recorded.layout.unflatten(each)[name].flatten() for name in names])
        for each in (recorded.weights(4), predicted)
    )
    expected = ((after - before).norm() / before.norm()).item()
    assert diagnosis.results["delta-budgets"].values["change"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("problem", ["no server", "another store"])
def test_a_store_that_fails_is_a_warning(recorded, tmp_path, monkeypatch, command_line, caplog, problem):
    folder = tmp_path / "seed_0"
    shutil.copytree(TRAINED, folder)
    if problem == "no server":
        monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "http://127.0.0.1:9")
    else:
        (folder / RUN_FILE).write_text(json.dumps({"schema": 1, "run_id": "0" * 32}))
    result = command_line("diagnose", "weight-norms", "--trajectory", folder, "--report-dir", tmp_path / "reports")
    assert result.exit_code == 0, result.output
    assert "has a copy" not in result.stdout
    assert "the report is not in the tracking store" in caplog.text


INVALID = {
    "no probe": ([], {}, "no probe is given; expected some of attention-logits"),
    "unknown probe": (["loss-lin"], {}, "did you mean loss-line"),
    "a probe that does not apply": (["loss-line", "null-text-drift"], {}, "null-text-drift does not apply to MLP"),
    "no such step": (["spectrum"], {"to-step": "7"}, "no snapshot at step 7"),
    "one step twice": (["spectrum"], {"from-step": "30"}, "both sides are the snapshot at step 30"),
    "a trajectory of one snapshot": (
        ["spectrum"],
        {"trajectory": "trajectories/single/seed_0"},
        "both sides are the snapshot at step 0",
    ),
    "no trajectory": (["spectrum"], {"trajectory": "trajectories/gone"}, "no such folder"),
    "another architecture": (
        ["spectrum"],
        {"against": "trajectories/wider/seed_0"},
        "is another network than MLP of the trajectory",
    ),
    "no examples": (["spectrum"], {"examples": "0"}, "examples is 0; expected 1 or more"),
    "no such split": (["spectrum"], {"split": "test"}, "known are train"),
    "a horizon alone": (["spectrum"], {"horizon": "10"}, "of which nowcast"),
    "a nowcast without a horizon": (["spectrum"], {"nowcast": "builtin"}, "needs a horizon"),
    "two changes": (["spectrum"], {"nowcast": "builtin", "horizon": "9", "to-step": "5"}, "give no to_step"),
    "no such optimizer": (["spectrum"], {"nowcast": "gone.safetensors", "horizon": "9"}, "gone.safetensors"),
    "reports among recordings": (["spectrum"], {"report-dir": "trajectories"}, "contains recordings"),
}


@pytest.mark.parametrize("name", INVALID)
def test_bad_input_is_an_error_in_one_line_and_writes_nothing(recorded, command_line, name):
    probes, change, message = INVALID[name]
    before = sorted(Path("reports").rglob("*"))
    result = command_line("diagnose", *probes, *in_words({"trajectory": TRAINED, **change}))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1, result.stderr
    assert message in result.stderr
    assert sorted(Path("reports").rglob("*")) == before


def test_configurations_are_checked_in_python():
    config = workflows.DiagnoseConfig(probes="weight-norm")
    with pytest.raises(UnknownName, match="did you mean weight-norms"):
        workflows.diagnose(config)
    with pytest.raises(InvalidConfig, match="give no from_step"):
        replace(config, against="x", from_step=3)


def test_the_list_of_probes(command_line):
    text = command_line("list", "probes").stdout
    assert "loss-line" in text
    assert "The loss along the straight line" in text
    assert "points  11" in command_line("list", "probes", "loss-line").stdout
