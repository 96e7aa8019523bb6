"""What the UI shows of runs and versions, as it stands in a real store: descriptions, names, links, cards."""

import pytest
from mlflow.utils.name_utils import _generate_random_name
from torch import nn

from metaopt.core.config import Config
from metaopt.generative import get_optimizer_model
from metaopt.tracking import (
    add_judgement,
    gave_version,
    judged_version,
    judges_version,
    learned_from,
    promote,
    register_optimizer,
    run_link,
    start_run,
)
from metaopt.tracking.cards import with_judgement
from metaopt.tracking.descriptions import code, is_random
from metaopt.weights.layout import Layout

NOTE = "mlflow.note.content"


class Nothing(Config):
    """What a run needs to start."""


def note_of(client, tracker) -> str:
    return client.get_run(tracker.run_id).data.tags.get(NOTE, "")


def test_a_description_says_what_a_run_does_and_then_its_result(store, client):
    with start_run("run", Nothing(), description="Counts to three.") as tracker:
        assert note_of(client, tracker) == "Counts to three.\n**Result:** none yet"
        tracker.note(result="three,\n  at last", see="[other](#/x)")
        tracker.note(see="a file")
    assert note_of(client, tracker) == "Counts to three.\n**Result:** three, at last\n[other](#/x). a file"


def test_a_run_without_a_result_does_not_promise_one(store, client):
    with start_run("said", Nothing(), description="Counts.") as said, start_run("silent", Nothing()) as silent:
        pass
    assert note_of(client, said) == "Counts."
    assert note_of(client, silent) == ""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no `digits`\nhere"), "**Result:** failed: `ValueError: no 'digits' here`"),
        (KeyboardInterrupt(), "**Result:** stopped before its end, by Ctrl-C or SIGTERM"),
    ],
)
def test_a_run_that_does_not_end_well_says_so_in_a_line(store, client, error, told):
    def count(tracker):
        tracker.note(result="two so far")
        raise error

    with pytest.raises(type(error)), start_run("run", Nothing(), description="Counts.") as tracker:
        count(tracker)
    assert note_of(client, tracker) == f"Counts.\n{told}"


def test_a_long_error_is_cut_short():
    assert len(code("x" * 5000)) < 700


def test_a_child_says_how_it_failed_and_who_made_it(store, client):
    with (
        start_run("parent", Nothing()) as parent,
        pytest.raises(ValueError, match="no"),
        parent.child("child") as child,
    ):
        raise ValueError("no")
    assert note_of(client, child) == "**Result:** failed: `ValueError: no`"
    tags, above = (client.get_run(each.run_id).data.tags for each in (child, parent))
    assert {name: tags[name] for name in ("mlflow.user", "mlflow.source.name")} == {
        name: above[name] for name in ("mlflow.user", "mlflow.source.name")
    }


def test_an_experiment_is_described_unless_a_person_did(store, client):
    with start_run("first", Nothing(), experiment="described"):
        pass
    experiment = client.get_experiment_by_name("described")
    assert experiment.tags[NOTE].startswith("metaopt records how networks train")
    client.set_experiment_tag(experiment.experiment_id, NOTE, "mine")
    with start_run("second", Nothing(), experiment="described"):
        pass
    assert client.get_experiment_by_name("described").tags[NOTE] == "mine"


@pytest.mark.parametrize("name", ["sweep-lr-3", "by launcher", "bold-lr-12", "lr-fox-12", "fox", "bold-fox-x"])
def test_a_name_that_somebody_gave_is_no_random_one(name):
    assert not is_random(name)


def test_mlflows_own_names_are_known():
    """If this fails, MLflow draws names in another way, and launched runs keep them."""
    assert all(is_random(_generate_random_name()) for _ in range(500))
    assert is_random("")


@pytest.mark.parametrize(("given", "expected"), [(None, "ours"), ("theirs", "theirs")])
def test_a_launched_run_is_named_unless_its_launcher_was_told_a_name(store, client, monkeypatch, given, expected):
    run_id = client.create_run("0", run_name=given).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with start_run("ours", Nothing()):
        pass
    assert client.get_run(run_id).info.run_name == expected


def test_trajectories_and_what_learned_from_them_name_each_other(store, client):
    with start_run("record", Nothing(), description="Records.") as recorded:
        pass
    for name in ("one", "two"):
        with start_run(name, Nothing()) as learner:
            learned_from(learner, [recorded.run_id])
            learned_from(learner, [recorded.run_id])
    run = client.get_run(learner.run_id)
    assert run.data.tags["metaopt.trajectory_runs"] == recorded.run_id
    assert run_link(client, recorded.run_id) in note_of(client, learner)
    users = client.get_run(recorded.run_id).data.tags["metaopt.optimizer_runs"].split(",")
    assert (len(users), users[1]) == (2, learner.run_id)
    links = ", ".join(run_link(client, user) for user in users)
    assert note_of(client, recorded) == f"Records.\nUsed by: {links}"


@pytest.fixture
def version(store):
    """A registered version, its number and the run that gave it."""
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
        )
    return number, tracker


def test_a_card_says_what_a_version_is_and_how_to_load_it(version, client):
    number, tracker = version
    card = client.get_model_version("tiny", str(number)).description
    assert "Line: given past weights" in card
    assert "**Task and data:** MLP on digits." in card
    assert "up to 3 snapshots of the weights, 20 steps apart" in card
    assert 'optimizer = metaopt.load_optimizer("models:/tiny/1")' in card
    assert run_link(client, tracker.run_id) in card
    assert "held-out random seeds:** not yet" in card
    assert client.get_registered_model("tiny").description.endswith(card)
    (output,) = client.get_run(tracker.run_id).outputs.model_outputs
    assert client.get_logged_model(output.model_id).tags[NOTE] == card


def test_an_evaluation_and_the_version_that_it_judged_name_each_other(version, client):
    number, _ = version
    with start_run("judge", Nothing()) as judge, start_run("main", Nothing()) as main:
        judges_version(judge, "tiny", number)
        add_judgement("tiny", number, f"speed-up 2 ({run_link(client, judge.run_id)})")
        judged_version(judge, "tiny", number, {"speedup": 2.0}, step=40)
        gave_version(main, "tiny", number)
    (given,) = client.get_run(judge.run_id).inputs.model_inputs
    model = client.get_logged_model(given.model_id)
    assert [(metric.key, metric.value, metric.run_id) for metric in model.metrics] == [("speedup", 2.0, judge.run_id)]
    assert client.get_run(judge.run_id).data.metrics == {"speedup": 2.0}
    assert client.get_run(judge.run_id).data.tags["metaopt.judged"] == "models:/tiny/1"
    assert client.get_run(main.run_id).outputs.model_outputs[0].model_id == given.model_id
    for card in (client.get_model_version("tiny", "1").description, client.get_registered_model("tiny").description):
        assert f"- speed-up 2 ({run_link(client, judge.run_id)})" in card
        assert "not yet" not in card


def test_judgements_stand_below_each_other_the_newest_first(version, client):
    card = client.get_model_version("tiny", "1").description
    twice = with_judgement(with_judgement(card, "first"), "second")
    assert "\n- second\n- first\n\n**Load it" in twice
    assert with_judgement(card, "x" * 5000) == card
    assert with_judgement("a person's words", "first").startswith("a person's words\n")


def test_what_a_person_wrote_on_the_models_page_stays(version, client):
    client.update_registered_model("tiny", "hands off")
    promote("tiny", 1)
    add_judgement("tiny", 1, "speed-up 2")
    assert client.get_registered_model("tiny").description == "hands off"


def test_the_page_of_a_model_shows_its_champion(version, client):
    with start_run("again", Nothing()) as tracker:
        register_optimizer(
            tracker, get_optimizer_model("Hold"), [Layout.of(nn.Linear(4, 3))],
            name="tiny", description="better", tags={}, stride=5.0, facts={}, alias=None,
        )  # fmt: skip
    assert "Line" in client.get_registered_model("tiny").description
    promote("tiny", 2)
    assert "**champion: version 2.**" in client.get_registered_model("tiny").description
    assert "Hold" in client.get_registered_model("tiny").description
