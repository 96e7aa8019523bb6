"""Gates: what a growth seed has to show before it enters its next stage."""

from collections.abc import Mapping
from typing import NamedTuple

from .config import GrowthConfig
from .slot import Slot
from .stages import Stage

NEXT: Mapping[Stage, Stage] = {
    Stage.TRAINING: Stage.BLENDING,
    Stage.SHADOWING: Stage.PROBATIONARY,
    Stage.PROBATIONARY: Stage.FOSSILIZED,
}
"""The stages that are entered through a gate, by the stage before. Others follow by themselves."""


class Verdict(NamedTuple):
    """Whether a growth seed passes a gate, and why, for people."""

    passed: bool
    reason: str


def gate(slot: Slot, step: int, config: GrowthConfig) -> Verdict:
    """Whether the growth seed of a slot may enter the stage after its own, at this step.

    TRAINING → BLENDING          after `train_steps`, if the loss rises by `tolerance` at most
    SHADOWING → PROBATIONARY     if the loss is lower with it than without it
    PROBATIONARY → FOSSILIZED    after `probation_steps`, if the loss is lower with it than without it
    """
    if slot.stage not in NEXT:
        return Verdict(False, f"a slot that is {slot.stage} has no gate")
    least = least_steps(slot.stage, config)
    if (steps := step - slot.since) < least:
        return Verdict(False, f"{slot.stage} for {steps} of at least {least} steps")
    if slot.gain is None:
        return Verdict(False, "its loss has not been measured")
    losses = f"loss {slot.loss_with:.4g} with it, {slot.loss_without:.4g} without it"
    if slot.stage is Stage.TRAINING:
        return Verdict(slot.gain >= -config.tolerance * abs(slot.loss_without or 0.0), losses)
    return Verdict(slot.gain > 0, losses)


def least_steps(stage: Stage, config: GrowthConfig) -> int:
    """The steps that a seed stays in a stage at least [steps]."""
    return {Stage.TRAINING: config.train_steps, Stage.PROBATIONARY: config.probation_steps}.get(stage, 0)
