"""Descriptions, names, links and cards of runs and versions in a real store."""

import json
from pathlib import Path

import mlflow
import pytest
from torch import nn

from metaopt.core.config import Config
from metaopt.generative import get_optimizer_model
from metaopt.tracking import (
    RunReference,
    add_evaluation,
    link_evaluation,
    link_trajectories,
    link_version,
    log_evaluation_metrics,
    promote,
    register_optimizer,
    run_link,
    start_run,
)
from metaopt.tracking.cards import with_evaluation
from metaopt.tracking.descriptions import code
from metaopt.tracking.run_list import run_list
from metaopt.weights.layout import Layout

DESCRIPTION = "mlflow.note.content"


class Nothing(Config):
    """A configuration without fields."""


def description_of(client, tracker) -> str:
    return client.get_run(tracker.run_id).data.tags.get(DESCRIPTION, "")


def test_a_description_has_the_purpose_then_the_result_and_links(store, client):
    with start_run("run", Nothing(), description="Counts to three.") as tracker:
        assert description_of(client, tracker) == "Counts to three.\n**Result:** none yet"
        tracker.describe(result="three,\n  finally", links="[other](#/x)")
        tracker.describe(links="a file")
    assert description_of(client, tracker) == "Counts to three.\n**Result:** three, finally\n[other](#/x). a file"


def test_a_finished_run_without_a_result_has_no_line_for_it(store, client):
    with start_run("one", Nothing(), description="Counts.") as described, start_run("two", Nothing()) as empty:
        pass
    assert description_of(client, described) == "Counts."
    assert description_of(client, empty) == ""


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (ValueError("no `digits`\nhere"), "**Result:** failed: `ValueError: no 'digits' here`"),
        (KeyboardInterrupt(), "**Result:** stopped early by Ctrl-C, SIGTERM or a closed terminal"),
    ],
)
def test_the_result_of_an_unfinished_run_is_its_error(store, client, error, result):
    def count(tracker):
        tracker.describe(result="two so far")
        raise error

    with pytest.raises(type(error)), start_run("run", Nothing(), description="Counts.") as tracker:
        count(tracker)
    assert description_of(client, tracker) == f"Counts.\n{result}"


def test_a_long_error_is_shortened():
    assert len(code("x" * 5000)) < 700


def test_a_child_run_has_its_error_and_the_user_of_its_parent(store, client):
    with (
        start_run("parent", Nothing()) as parent,
        pytest.raises(ValueError, match="no"),
        parent.child("child") as child,
    ):
        raise ValueError("no")
    assert description_of(client, child) == "**Result:** failed: `ValueError: no`"
    tags, above = (client.get_run(each.run_id).data.tags for each in (child, parent))
    assert {name: tags[name] for name in ("mlflow.user", "mlflow.source.name")} == {
        name: above[name] for name in ("mlflow.user", "mlflow.source.name")
    }


def test_an_experiment_is_described_unless_a_user_did(store, client):
    with start_run("first", Nothing(), experiment="described"):
        pass
    experiment = client.get_experiment_by_name("described")
    assert experiment.tags[DESCRIPTION].startswith("metaopt records how networks train")
    client.set_experiment_tag(experiment.experiment_id, DESCRIPTION, "mine")
    with start_run("second", Nothing(), experiment="described"):
        pass
    assert client.get_experiment_by_name("described").tags[DESCRIPTION] == "mine"


@pytest.mark.parametrize("launcher_name", [None, "sweep-lr-3"])
def test_a_launched_run_keeps_its_name_and_has_ours_as_a_tag(store, client, monkeypatch, launcher_name):
    launched = client.create_run("0", run_name=launcher_name)
    monkeypatch.setenv("MLFLOW_RUN_ID", launched.info.run_id)
    with start_run("record cnn", Nothing()):
        pass
    run = client.get_run(launched.info.run_id)
    assert run.info.run_name == launched.info.run_name
    assert run.data.tags["metaopt.name"] == "record cnn"


def test_a_run_of_our_own_needs_no_tag_for_its_name(store, client):
    with start_run("record cnn", Nothing()) as tracker:
        pass
    run = client.get_run(tracker.run_id)
    assert run.info.run_name == "record cnn"
    assert "metaopt.name" not in run.data.tags


@pytest.mark.parametrize(
    "card",
    [
        "given past weights.\n\n**In training, on held-out random seeds:** not yet; evaluate it.\n\n**Load it",
        "given past weights.\n\n**In training, on held-out random seeds:**\n- old\n\n**Load it",
    ],
)
def test_cards_of_metaopt_0_1_take_further_evaluations(card):
    extended = with_evaluation(card, "new")
    assert "**In training, on held-out random seeds:**\n- new\n" in extended
    assert "not yet" not in extended
    assert extended.startswith("given past weights.")
    assert extended.endswith("\n\n**Load it")
    assert ("- new\n- old\n" in extended) == ("- old" in card)


def test_trajectories_and_trainings_link_each_other(store, client):
    with start_run("record", Nothing(), description="Records.") as recorded:
        pass
    for name in ("one", "two"):
        with start_run(name, Nothing()) as training:
            link_trajectories(training, [recorded.run_id])
            link_trajectories(training, [recorded.run_id])
    run = client.get_run(training.run_id)
    assert run.data.tags["metaopt.trajectory_runs"] == recorded.run_id
    assert run_link(client, recorded.run_id) in description_of(client, training)
    users = client.get_run(recorded.run_id).data.tags["metaopt.optimizer_runs"].split(",")
    assert (len(users), users[1]) == (2, training.run_id)
    links = ", ".join(run_link(client, user) for user in users)
    assert description_of(client, recorded) == f"Records.\nUsed by: {links}"


@pytest.fixture
def version(store):
    """The number of a registered version and the run that registered it."""
    with start_run("meta", Nothing()) as tracker:
        number = register_optimizer(
            tracker,
            get_optimizer_model("Line", history=3),
            [Layout.of(nn.Linear(4, 3))],
            name="tiny",
            description="**Task and data:** MLP on digits.",
            tags={"trained_on": "MLP on digits"},
            stride=20.0,
            facts={},
            alias="champion",
        )
    return number, tracker


def test_a_card_has_data_input_usage_and_evaluations(version, client):
    number, tracker = version
    card = client.get_model_version("tiny", str(number)).description
    assert "Line: predicts the weights of a network" in card
    assert "**Task and data:** MLP on digits." in card
    assert "up to 3 snapshots of the weights, 20 steps apart" in card
    assert 'optimizer = metaopt.load_optimizer("models:/tiny/1")' in card
    assert run_link(client, tracker.run_id) in card
    assert "held-out random seeds:** not yet" in card
    assert client.get_registered_model("tiny").description.endswith(card)
    (output,) = client.get_run(tracker.run_id).outputs.model_outputs
    assert client.get_logged_model(output.model_id).tags[DESCRIPTION] == card


def test_an_evaluation_and_its_version_link_each_other(version, client):
    number, _ = version
    with start_run("evaluation", Nothing()) as evaluation, start_run("main", Nothing()) as main:
        link_evaluation(evaluation, "tiny", number)
        add_evaluation("tiny", number, f"speed-up 2 ({run_link(client, evaluation.run_id)})")
        log_evaluation_metrics(evaluation, "tiny", number, {"speedup": 2.0}, step=40)
        link_version(main, "tiny", number)
    (model_input,) = client.get_run(evaluation.run_id).inputs.model_inputs
    model = client.get_logged_model(model_input.model_id)
    assert [(metric.key, metric.value, metric.run_id) for metric in model.metrics] == [
        ("speedup", 2.0, evaluation.run_id)
    ]
    assert client.get_run(evaluation.run_id).data.metrics == {"speedup": 2.0}
    assert client.get_run(evaluation.run_id).data.tags["metaopt.judged"] == "models:/tiny/1"
    assert client.get_run(main.run_id).outputs.model_outputs[0].model_id == model_input.model_id
    for card in (client.get_model_version("tiny", "1").description, client.get_registered_model("tiny").description):
        assert f"- speed-up 2 ({run_link(client, evaluation.run_id)})" in card
        assert "not yet" not in card


def test_evaluations_are_listed_newest_first(version, client):
    card = client.get_model_version("tiny", "1").description
    twice = with_evaluation(with_evaluation(card, "first"), "second")
    assert "\n- second\n- first\n\n**Load it" in twice
    assert with_evaluation(card, "x" * 5000) == card
    assert with_evaluation("text of a user", "first").startswith("text of a user\n")


def test_a_description_by_a_user_is_kept(version, client):
    client.update_registered_model("tiny", "mine")
    promote("tiny", 1)
    add_evaluation("tiny", 1, "speed-up 2")
    assert client.get_registered_model("tiny").description == "mine"


def test_the_page_of_a_model_shows_the_card_of_its_champion(version, client):
    with start_run("again", Nothing()) as tracker:
        register_optimizer(
            tracker, get_optimizer_model("Hold"), [Layout.of(nn.Linear(4, 3))],
            name="tiny", description="better", tags={}, stride=5.0, facts={}, alias=None,
        )  # fmt: skip
    assert "Line" in client.get_registered_model("tiny").description
    promote("tiny", 2)
    assert "**champion: version 2.**" in client.get_registered_model("tiny").description
    assert "Hold" in client.get_registered_model("tiny").description


def test_the_experiment_has_a_view_with_the_columns_of_metaopt_and_its_kind(store, client, config):
    with start_run("first", config) as tracker:
        pass
    tags = client.get_experiment(tracker.experiment_id).tags
    assert "metrics.`speedup`" in json.loads(tags["mlflow.sharedViewState.metaopt"])["selectedColumns"]
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert run_list(tracker.experiment_id).endswith("viewStateShareKey=metaopt&workflowType=machine_learning")
    assert str(tracker.reference).endswith(f"/runs/{tracker.run_id}?workflowType=machine_learning")


def test_the_user_interface_of_this_mlflow_knows_the_parts_of_these_addresses():
    folder = Path(mlflow.__file__).parent / "server" / "js" / "build" / "static" / "js"
    source = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.js"))
    for part in ("workflowType", "machine_learning", "viewStateShareKey", "mlflow.sharedViewState.", "selectedColumns"):
        assert part in source, part
    assert "custom_model_development" in source


def test_an_address_has_no_password():
    reference = RunReference("ab", "https://ada:battery@host/", "3")
    assert str(reference) == "ab, https://host/#/experiments/3/runs/ab?workflowType=machine_learning"
