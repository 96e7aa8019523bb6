"""The life cycle of a growth seed: its stages, and the one table of the transitions between them."""

from collections.abc import Mapping
from enum import StrEnum

from ..core.errors import IllegalTransition


class Stage(StrEnum):
    """The stage of a slot, which a growth seed passes through.

    Attributes:
        DORMANT: the slot is empty; the network is as without it.
        GERMINATED: the seed is there, with an output of zero; it is trained from the next step.
        TRAINING: the seed is trained on features of the host, and changes nothing.
        BLENDING: α rises from 0 to 1, and host and seed are trained together.
        SHADOWING: α = 1; the loss with the seed is compared with the loss without it.
        PROBATIONARY: α = 1; the network has to stay as good for a while.
        FOSSILIZED: the seed is a part of the network from now on.
        CULLED: the seed has been removed.
        EMBARGOED: the slot stays empty for a while, so that nothing is tried again at once.
        RESETTING: what the slot knew about the seed is dropped.
    """

    DORMANT = "dormant"
    GERMINATED = "germinated"
    TRAINING = "training"
    BLENDING = "blending"
    SHADOWING = "shadowing"
    PROBATIONARY = "probationary"
    FOSSILIZED = "fossilized"
    CULLED = "culled"
    EMBARGOED = "embargoed"
    RESETTING = "resetting"

    @property
    def has_seed(self) -> bool:
        """Whether a growth seed is in the slot."""
        return self in _CULLABLE or self is Stage.FOSSILIZED

    @property
    def is_cullable(self) -> bool:
        """Whether the growth seed can still be removed."""
        return self in _CULLABLE

    @property
    def is_blended(self) -> bool:
        """Whether the growth seed changes the outputs of the network."""
        return self in (Stage.BLENDING, Stage.SHADOWING, Stage.PROBATIONARY, Stage.FOSSILIZED)


SUCCESSORS: Mapping[Stage, tuple[Stage, ...]] = {
    Stage.DORMANT: (Stage.GERMINATED,),
    Stage.GERMINATED: (Stage.TRAINING, Stage.CULLED),
    Stage.TRAINING: (Stage.BLENDING, Stage.CULLED),
    Stage.BLENDING: (Stage.SHADOWING, Stage.CULLED),
    Stage.SHADOWING: (Stage.PROBATIONARY, Stage.CULLED),
    Stage.PROBATIONARY: (Stage.FOSSILIZED, Stage.CULLED),
    Stage.FOSSILIZED: (),
    Stage.CULLED: (Stage.EMBARGOED,),
    Stage.EMBARGOED: (Stage.RESETTING,),
    Stage.RESETTING: (Stage.DORMANT,),
}
"""The stages that can follow each stage; the first is where it leads if all goes well."""

_CULLABLE = tuple(stage for stage, successors in SUCCESSORS.items() if Stage.CULLED in successors)


def check_transition(before: Stage, after: Stage) -> None:
    """Check that a stage can follow another.

    Raises:
        IllegalTransition: it cannot; the message lists those that can.
    """
    if after not in SUCCESSORS[before]:
        allowed = ", ".join(SUCCESSORS[before]) or "nothing"
        raise IllegalTransition(f"a slot that is {before} cannot become {after}; expected {allowed}")
