"""Gates: what a growth seed has to show before it enters its next stage."""

from typing import NamedTuple

from .config import GrowthConfig
from .slot import Slot
from .stages import Stage


class Verdict(NamedTuple):
    """Whether a growth seed passes a gate, and why, for people."""

    passed: bool
    reason: str


def gate(slot: Slot, step: int, config: GrowthConfig) -> Verdict:
    """Whether the growth seed of a slot may enter the stage after its own, at this step.

        TRAINING → BLENDING          after `train_steps`, if the loss is lower with it than without it
        SHADOWING → PROBATIONARY     if the loss is lower with it than without it
        PROBATIONARY → FOSSILIZED    after `probation_steps`, if the loss is lower with it than without it

    Other stages follow by themselves: no gate is asked, and the verdict says so.
    """
    least = {Stage.TRAINING: config.train_steps, Stage.SHADOWING: 0, Stage.PROBATIONARY: config.probation_steps}
    if slot.stage not in least:
        return Verdict(False, f"a slot that is {slot.stage} has no gate")
    if (steps := step - slot.since) < least[slot.stage]:
        return Verdict(False, f"{slot.stage} for {steps} of at least {least[slot.stage]} steps")
    if slot.gain is None:
        return Verdict(False, "its loss has not been measured")
    losses = f"loss {slot.loss_with:.4g} with it, {slot.loss_without:.4g} without it"
    return Verdict(slot.gain > 0, losses)
