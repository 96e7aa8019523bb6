"""The life cycle of a slot: the table of its transitions, gates, the embargo, and what a spike of the loss does."""

import copy
import math
from itertools import product

import pytest
import torch

from metaopt.core.errors import CheckpointError, Diverged, IllegalTransition, InvalidConfig
from metaopt.growth import GrowthConfig, Stage
from metaopt.growth.gates import gate
from metaopt.growth.rollback import Rollback
from metaopt.growth.slot import Slot
from metaopt.growth.stages import SUCCESSORS, check_transition

from ..small_growth import Training, same

EDGES = [(before, after) for before, successors in SUCCESSORS.items() for after in successors]
OTHERS = [pair for pair in product(Stage, Stage) if pair not in EDGES]


def test_the_table_has_every_stage_and_one_end():
    assert set(SUCCESSORS) == set(Stage)
    assert [stage for stage, successors in SUCCESSORS.items() if not successors] == [Stage.FOSSILIZED]
    assert {after for _, after in EDGES} == set(Stage)


@pytest.mark.parametrize(("before", "after"), EDGES)
def test_a_slot_follows_each_edge(before, after):
    slot = Slot("blocks.1", "cnn", 8, before, "conv", since=3, loss_with=1.0, loss_without=2.0)
    assert slot.move(after, 7, "a reason") == (7, "blocks.1", before, after, "conv", "a reason")
    assert (slot.stage, slot.since, slot.culled) == (after, 7, int(after is Stage.CULLED))
    assert (slot.blueprint == "", slot.gain is None) == ((True, True) if after is Stage.RESETTING else (False, False))


@pytest.mark.parametrize(("before", "after"), OTHERS)
def test_other_transitions_are_refused_and_change_nothing(before, after):
    slot = Slot("blocks.1", "cnn", 8, before, "conv")
    state = slot.state()
    with pytest.raises(IllegalTransition, match=f"a slot that is {before} cannot become {after}; expected"):
        slot.move(after, 7, "a reason")
    with pytest.raises(IllegalTransition):
        check_transition(before, after)
    assert slot.state() == state


@pytest.mark.parametrize("stage", Stage)
def test_a_seed_that_can_be_removed_is_there(stage):
    assert stage.is_cullable <= stage.has_seed
    assert stage.is_blended <= stage.has_seed
    facts = Slot("blocks.1", "cnn", 8, stage, "conv").facts
    assert facts == (("blocks.1", "cnn.conv", 8, stage.is_blended) if stage.has_seed else None)


CONFIG = GrowthConfig(train_steps=4, probation_steps=6)


@pytest.mark.parametrize(
    ("stage", "steps", "losses", "passed", "reason"),
    [
        (Stage.TRAINING, 3, (1.0, 2.0), False, "training for 3 of at least 4 steps"),
        (Stage.TRAINING, 4, (None, None), False, "has not been measured"),
        (Stage.TRAINING, 4, (1.0, 2.0), True, "loss 1 with it, 2 without it"),
        (Stage.TRAINING, 4, (2.0, 2.0), True, "loss 2 with it, 2 without it"),
        (Stage.TRAINING, 4, (2.01, 2.0), True, "loss 2.01 with it, 2 without it"),
        (Stage.TRAINING, 4, (2.03, 2.0), False, "loss 2.03 with it, 2 without it"),
        (Stage.SHADOWING, 0, (2.0, 2.0), False, "loss 2 with it, 2 without it"),
        (Stage.TRAINING, 4, (math.nan, 2.0), False, "loss nan with it, 2 without it"),
        (Stage.SHADOWING, 0, (1.0, 2.0), True, "loss 1 with it"),
        (Stage.SHADOWING, 0, (3.0, 2.0), False, "loss 3 with it"),
        (Stage.PROBATIONARY, 5, (1.0, 2.0), False, "probationary for 5 of at least 6 steps"),
        (Stage.PROBATIONARY, 6, (1.0, 2.0), True, "loss 1 with it"),
        *((stage, 99, (1.0, 2.0), False, "has no gate") for stage in Stage
          if stage not in (Stage.TRAINING, Stage.SHADOWING, Stage.PROBATIONARY)),
    ],
)  # fmt: skip
def test_gates_state_their_reasons(stage, steps, losses, passed, reason):
    with_it, without_it = losses
    slot = Slot("blocks.1", "cnn", 8, stage, "conv", since=10, loss_with=with_it, loss_without=without_it)
    verdict = gate(slot, 10 + steps, CONFIG)
    assert verdict.passed is passed
    assert reason in verdict.reason


def test_a_seed_that_passes_all_gates_stays():
    training = Training("HostCNN")
    training.reach("fossilized", "blocks.1", "norm")
    growth = training.growth
    assert [event.after for event in growth.events] == [
        "germinated", "training", "blending", "shadowing", "probationary", "fossilized"
    ]  # fmt: skip
    assert growth.focus is None
    assert growth.alpha_of(growth.slots["blocks.1"]) == 1.0
    with pytest.raises(IllegalTransition, match="fossilized cannot become culled"):
        growth.cull("blocks.1")
    with pytest.raises(InvalidConfig, match="is fossilized; a seed can only germinate in one that is dormant"):
        growth.germinate("blocks.1", "conv")


def test_alpha_rises_by_the_steps_of_blending():
    training = Training("HostCNN", blend_steps=4)
    training.reach("blending", "blocks.1", "norm")
    slot, found = training.growth.slots["blocks.1"], []
    while slot.stage == "blending":
        training.train()
        found.append(training.growth.alpha_of(slot))
    assert found == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("embargo", [0, 1, 3])
def test_a_slot_stays_empty_for_its_embargo(embargo):
    training = Training("HostCNN", embargo_steps=embargo)
    training.reach("training", "blocks.1", "norm")
    training.growth.cull("blocks.1", "of no use")
    slot, stages = training.growth.slots["blocks.1"], []
    while slot.stage != "dormant":
        with pytest.raises(InvalidConfig, match="can only germinate in one that is dormant"):
            training.growth.germinate("blocks.1", "norm")
        training.train()
        stages.append(slot.stage)
    assert stages == ["embargoed", *["embargoed"] * max(embargo - 1, 0), "resetting", "dormant"]
    assert (slot.culled, slot.blueprint, slot.gain) == (1, "", None)
    training.growth.germinate("blocks.1", "conv")


@pytest.mark.parametrize(("stage", "loss"), [("blending", math.nan), ("shadowing", math.inf), ("probationary", 1e4)])
@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_a_spike_returns_to_the_last_measurement_and_removes_the_seed(stage, loss, optimizer):
    training = Training("HostCNN with BatchNorm", optimizer=optimizer, blend_steps=9 if stage == "blending" else 2)
    training.train(5)
    training.reach(stage, "blocks.1", "norm")
    training.growth.measure()
    kept = same_as_without_seed(training)
    training.train(2)
    events = training.train(loss=loss)
    assert [event.after for event in events] == ["culled", "embargoed"]
    assert "the weights are those of the last measurement" in events[0].reason
    assert same(kept, [training.model.state_dict(), training.optimizer.state_dict()])
    assert training.growth.state_dict()["rollback"]["kept"] is None, "it is of no use any more"
    training.train(3)


def same_as_without_seed(training):
    """The state of the network and of the optimizer after the seed is removed, now."""
    twin = Training("HostCNN with BatchNorm", optimizer=type(training.optimizer).__name__, blend_steps=9)
    twin.load(copy.deepcopy(training.state()))
    twin.growth.cull("blocks.1")
    return [twin.model.state_dict(), twin.optimizer.state_dict()]


@pytest.mark.filterwarnings("ignore")
def test_a_measurement_of_a_broken_network_is_not_returned_to():
    training = Training("HostCNN")
    training.train(5)
    training.reach("blending", "blocks.1", "norm")
    training.train()
    weights = training.model.classifier.weight
    weights.data.fill_(math.nan)
    assert math.isnan(training.growth.measure())
    training.train()
    assert weights.isfinite().all()
    assert training.growth.slots["blocks.1"].stage == "embargoed"


@pytest.mark.parametrize("change", ["germinate", "cull", "second"])
def test_a_spike_after_another_seed_came_or_went(change):
    training = Training("TransformerHost", blend_steps=20)
    if change == "cull":
        training.growth.germinate("blocks.0", "norm")
    training.reach("blending", "blocks.1", "mlp")
    if change == "cull":
        training.growth.cull("blocks.0")
    elif change == "germinate":
        training.growth.germinate("blocks.0", "norm")
    else:
        training.reach("blending", "blocks.0", "norm")
    training.train(loss=math.nan)
    stages = [slot.stage for slot in training.growth.slots.values()]
    assert stages == [{"germinate": "training"}.get(change, "embargoed"), "embargoed"]
    training.train(2)


def test_the_running_average_follows_a_loss_that_stays_high():
    training = Training("HostCNN", spike=2.0)
    for loss in (1.0, 10.0):
        training.train(30, loss=loss)
    training.reach("blending", "blocks.1", "norm")
    training.train(2, loss=10.0)
    assert training.growth.slots["blocks.1"].stage == "blending"


@pytest.mark.parametrize("stage", ["dormant", "training", "fossilized"])
def test_a_loss_that_is_not_finite_ends_a_training_in_which_no_seed_is_blended(stage):
    training = Training("HostCNN")
    if stage != "dormant":
        training.reach(stage, "blocks.1", "norm")
    with pytest.raises(Diverged, match="the training loss is nan"):
        training.train(loss=math.nan)


def test_no_spike_before_the_average_is_known():
    rollback = Rollback(spike=2.0)
    for loss in (1.0, 9.0, 1.0, 9.0, 1.0):
        assert not rollback.is_spike(loss)
        assert rollback.is_spike(math.nan)
        rollback.note(loss)
    assert rollback.is_spike(9.0)
    assert not rollback.is_spike(-9.0)


def test_a_state_of_another_place_is_refused():
    slot = Slot("blocks.1", "cnn", 8)
    for state in ({**slot.state(), "dim": 9}, {**slot.state(), "stage": "ripe"}, {**slot.state(), "more": 1}, {}):
        with pytest.raises(CheckpointError):
            slot.load(state)
    assert torch.is_grad_enabled()
