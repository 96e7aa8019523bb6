"""`metaopt config explain`, `campaign` and `hosts`, with a campaign that really runs."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERO = """\
common: {run_name: small, task: digits, target_model: MLP}
train-target: {epochs: 1, batch_size: 512}
train-optimizer: {epochs: 1, optimizer_model: Line, model_name: none}
"""


@pytest.fixture(scope="module")
def metaopt(command_line, module_store):
    """Runs a command in a folder with heroes, and returns its output."""
    heroes = module_store / "configs" / "heroes"
    heroes.mkdir(parents=True)
    for path in (ROOT / "configs" / "heroes").glob("*.yaml"):
        (heroes / path.name).write_text(path.read_text())
    (module_store / "small.yaml").write_text(HERO)

    def run(*arguments, code=0):
        result = command_line(*arguments)
        assert result.exit_code == code, result.output
        return result.output

    return run


def explained(metaopt, *arguments):
    facts = json.loads(metaopt("config", "explain", *arguments, "--json"))
    assert facts["command"] == "config explain"
    return facts, {each.pop("name"): each for each in facts["parameters"]}


@pytest.mark.parametrize("name", ["digits-mlp", "mnist-cnn"])
@pytest.mark.parametrize("workflow", ["train-target", "train-optimizer", "evaluate"])
def test_the_shipped_heroes_are_explained(metaopt, name, workflow):
    facts, parameters = explained(metaopt, workflow, "--config", f"configs/heroes/{name}.yaml")
    assert (facts["workflow"], len(facts["digest"])) == (workflow, 64)
    assert {each["layer"] for each in parameters.values()} == {"default", "hero"}
    assert all(each["line"] for each in parameters.values() if each["layer"] == "hero")


def test_flags_also_those_of_plug_ins_are_the_last_layer(metaopt):
    flags = ["--epochs", "7", "--widths", "8,8"]
    _, parameters = explained(metaopt, "train-target", "--config", "configs/heroes/digits-mlp.yaml", *flags)
    assert parameters["epochs"] == {"value": 7, "layer": "flag", "file": None, "line": None}
    assert parameters["target_options"] == {"value": {"widths": "8,8"}, "layer": "flag", "file": None, "line": None}
    assert "unknown flag --epoch: did you mean" in metaopt("config", "explain", "train-target", "--epoch", "1", code=2)


def test_a_command_reads_its_section_of_a_hero(metaopt):
    metaopt("train-target", "--config", "small.yaml", "--run-name", "by-command")
    assert Path("trajectories/by-command/seed_0").is_dir()
    Path("sections.yaml").write_text("evaluate: {steps: 100}")
    assert "none for generate" in metaopt("generate", "--config", "sections.yaml", code=1)


def test_a_campaign_is_made_shown_queued_and_run(metaopt, module_store):
    from mlflow import MlflowClient

    metaopt("campaign", "new", "first", "--hero", "small.yaml")
    assert metaopt("campaign", "list").split() == ["*", "first"]
    assert "train-optimizer  train-optimizer  train-target" in metaopt("campaign", "show")
    planned = json.loads(metaopt("campaign", "run", "--dry-run", "--seed", "3", "--json"))
    assert [job["parameters"]["seed"] for job in planned["jobs"]] == [3, 3]
    assert not Path("queue.db").exists()
    for added in (2, 0):
        assert f"{added} of 2 jobs added" in metaopt("campaign", "run", "first", "--queue", "queue.db")
    assert "train-optimizer" in metaopt("campaign", "run", "--here")
    assert "done before:  train-target, train-optimizer" in metaopt("campaign", "run", "--here")
    _, parameters = explained(metaopt, "train-target", "--campaign", "first")
    assert parameters["run_name"] == {"value": "small", "layer": "hero", "file": "small.yaml", "line": 1}
    jobs = json.loads(Path("campaigns/first/state.json").read_text())["jobs"].values()
    for job in jobs:
        assert MlflowClient().search_runs(["1"], f"tags.`metaopt.config_digest` = '{job['digest']}'")


def test_hosts_are_listed_and_probed(metaopt, module_store):
    Path("hosts.yaml").write_text("here: {roles: [storage], storage: ., parameters: {device: cpu, runs: 3}}")
    assert "here     storage" in metaopt("hosts")
    assert "healthy" in metaopt("hosts", "--probe")
    Path("away.yaml").write_text("away: {roles: [storage], storage: missing}")
    assert "NOT HEALTHY" in metaopt("hosts", "--hosts", "away.yaml", "--probe", code=1)
    _, parameters = explained(metaopt, "train-target", "--machine", "here")
    assert parameters["runs"]["value"] == 3
    assert parameters["device"] == {"value": "cpu", "layer": "machine", "file": "hosts.yaml", "line": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["config", "explain"], "name a command, such as train-target"),
        (["config", "explain", "train-traget"], "did you mean train-target"),
        (["config", "explain", "evaluate", "--config", "a", "--campaign", "b"], "give one of them"),
        (["config", "explain", "--campaign", "nothing"], "no campaign 'nothing'"),
        (["campaign", "switch", "nothing"], "no campaign 'nothing'"),
        (["campaign", "run", "--campaign-dir", "empty"], "no current campaign"),
        (["campaign", "new", "../x", "--hero", "small.yaml"], "expected 1 to 100 printable characters"),
        (["hosts", "--hosts", "nothing.yaml"], "cannot read the configuration nothing.yaml"),
    ],
)
def test_bad_input_is_one_line(metaopt, arguments, message):
    output = metaopt(*arguments, code=1 if "name a command" not in message else 2)
    assert message in output
    assert "Traceback" not in output
