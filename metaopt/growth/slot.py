"""A slot: the place of one growth seed, its stage, and what was measured of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from ..core.errors import CheckpointError
from ..core.text import shown
from .growth_seed import SeedFacts
from .history import Event
from .places import Place
from .stages import Stage, check_transition


@dataclass
class Slot:
    """The place of one growth seed.

    Attributes:
        tap, topology, dim: where it is.
        stage: the stage.
        blueprint: name of the blueprint; empty without a seed.
        since: the step at which the stage began [steps].
        order: number of the seed, in the order in which the seeds of the network germinated [count].
        culled: seeds that were removed here [count].
        loss_without: the loss without the seed, at the last measurement; None before one.
        loss_with: the loss with it, as if α were 1 [same unit].
    """

    tap: str
    topology: str
    dim: int
    stage: Stage = Stage.DORMANT
    blueprint: str = ""
    since: int = 0
    order: int = 0
    culled: int = 0
    loss_without: float | None = None
    loss_with: float | None = None

    @classmethod
    def at(cls, place: Place) -> Self:
        """An empty slot."""
        return cls(*place)

    @property
    def facts(self) -> SeedFacts | None:
        """What a snapshot states of its growth seed; None without one."""
        if not self.stage.has_seed:
            return None
        return SeedFacts(self.tap, f"{self.topology}.{self.blueprint}", self.dim, self.stage.is_blended)

    @property
    def gain(self) -> float | None:
        """How much lower the loss is with the seed than without it; None before a measurement."""
        if self.loss_with is None or self.loss_without is None:
            return None
        return self.loss_without - self.loss_with

    def move(self, stage: Stage, step: int, reason: str) -> Event:
        """Enter another stage.

        Raises:
            IllegalTransition: it cannot follow the present one.
        """
        check_transition(self.stage, stage)
        event = Event(step, self.tap, self.stage, stage, self.blueprint, reason)
        self.stage, self.since = stage, step
        if stage is Stage.CULLED:
            self.culled += 1
        if stage is Stage.RESETTING:
            self.blueprint, self.loss_with, self.loss_without = "", None, None
        return event

    def state(self) -> dict[str, Any]:
        """All attributes as JSON values."""
        return {**asdict(self), "stage": str(self.stage)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
            CheckpointError: it is that of another place, or no state of a slot.
        """
        try:
            loaded = type(self)(**{**state, "stage": Stage(state["stage"])})
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{shown(state)} is no state of a slot: {error}") from error
        ours = (self.tap, self.topology, self.dim)
        if (loaded.tap, loaded.topology, loaded.dim) != ours:
            raise CheckpointError(f"a slot of {loaded.tap}, {loaded.topology}, {loaded.dim}; expected {ours}")
        for field in fields(self):
            setattr(self, field.name, getattr(loaded, field.name))
