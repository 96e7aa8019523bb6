"""A resumed training that grows equals an uninterrupted one, bit for bit, at every stage of its seed."""

import copy

import pytest

from metaopt.core.errors import CheckpointError, InvalidConfig, UnknownName
from metaopt.growth import Stage
from metaopt.trajectories.checkpoint import load_checkpoint, save_checkpoint

from ..small_growth import TAPS, Training, same, structure

AFTER_A_SEED = ("culled", "embargoed", "resetting")


def new(name):
    """A training that has not begun; the step counts of AdamWScheduleFree are in its groups of parameters."""
    optimizer = "AdamWScheduleFree" if name == "HostCNN with BatchNorm" else "Adam"
    return Training(name, optimizer=optimizer, schedule="cosine", embargo_steps=2)


def at(stage, name):
    """A training whose last tap has reached a stage; another tap had a seed before, where there is one."""
    training, (*others, tap) = new(name), TAPS[name]
    for other in others:
        training.growth.germinate(other, "norm")
    training.train(2)
    if stage in AFTER_A_SEED:
        training.reach("blending", tap, "norm")
        training.growth.cull(tap)
        while training.growth.slots[tap].stage != stage:
            training.train()
    elif stage != "dormant":
        training.reach(stage, tap, "norm")
    training.growth.measure()
    return training


def go_on(training):
    """Further steps with measurements and a spike, which needs the copy of the last measurement."""
    for _ in range(3):
        training.train()
        training.growth.measure()
    training.train(loss=1e6)
    training.train(2)


@pytest.mark.parametrize("name", ["HostCNN with BatchNorm", "TransformerHost", "Sequential"])
@pytest.mark.parametrize("stage", Stage)
def test_a_resumed_training_equals_an_uninterrupted_one(stage, name, tmp_path):
    training = at(stage, name)
    save_checkpoint(tmp_path / "last.safetensors", training.state(), {})
    go_on(training)
    expected = copy.deepcopy(training.state())
    resumed = new(name)
    resumed.load(load_checkpoint(tmp_path / "last.safetensors")[0])
    assert resumed.growth.slots[TAPS[name][-1]].stage == stage
    go_on(resumed)
    assert same(resumed.state(), expected)
    assert structure(resumed.model) == structure(training.model)
    assert resumed.growth.events == training.growth.events


def test_seeds_that_came_in_another_order_than_their_taps():
    training = Training("TransformerHost")
    training.growth.germinate("blocks.1", "mlp")
    training.growth.germinate("blocks.0", "norm")
    training.train(3)
    resumed, state = Training("TransformerHost"), copy.deepcopy(training.state())
    training.train(2)
    resumed.load(state)
    resumed.train(2)
    assert same(resumed.state(), training.state())


def without(key):
    return lambda state: state.pop(key)


DAMAGES = {
    "no slots": without("slots"),
    "no step": without("step"),
    "no events": without("events"),
    "no measurements": without("measurements"),
    "no rollback": without("rollback"),
    "rollback of text": lambda state: state.update(rollback="text"),
    "copy without weights": lambda state: state["rollback"].update(kept={}),
    "slots of text": lambda state: state.update(slots=["text"]),
    "more slots": lambda state: state["slots"].append(state["slots"][0]),
    "another tap": lambda state: state["slots"][0].update(tap="blocks.0"),
    "an unknown stage": lambda state: state["slots"][0].update(stage="ripe"),
    "no stage": lambda state: state["slots"][0].pop("stage"),
    "a step of text": lambda state: state.update(step="many"),
    "measurements of text": lambda state: state.update(measurements=["low"]),
    "short events": lambda state: state["events"][0].pop(),
    "an event of no stage": lambda state: state["events"][0].__setitem__(2, "ripe"),
    "a number": lambda state: state.update(slots=3),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_states_are_refused(damage):
    training = Training("HostCNN")
    training.growth.germinate("blocks.1", "norm")
    state = copy.deepcopy(training.growth.state_dict())
    damage(state)
    with pytest.raises(CheckpointError):
        Training("HostCNN").growth.load_state_dict(state)


def test_a_state_with_a_blueprint_that_is_not_installed_is_refused():
    training = Training("HostCNN")
    training.growth.germinate("blocks.1", "norm")
    state = copy.deepcopy(training.growth.state_dict())
    state["slots"][0]["blueprint"] = "nrom"
    with pytest.raises(UnknownName, match="did you mean norm"):
        Training("HostCNN").growth.load_state_dict(state)


def test_a_state_is_not_loaded_into_a_network_that_has_grown():
    training = Training("HostCNN")
    training.growth.germinate("blocks.1", "norm")
    with pytest.raises(InvalidConfig, match="has a growth seed"):
        training.growth.load_state_dict(training.growth.state_dict())
