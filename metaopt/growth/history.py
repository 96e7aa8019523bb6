"""The history of a network that grew: what was measured, and what changed. `growth.json` holds it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from ..core.errors import FileFormatError
from ..trajectories.sealed_json import GROWTH_FILE, read_sealed, write_sealed
from .config import GrowthConfig
from .stages import Stage


class Event(NamedTuple):
    """A change of a slot.

    Attributes:
        step: training time [optimizer steps].
        tap: name of the tap.
        before, after: the stages.
        blueprint: name of the blueprint; empty without one.
        reason: why, for people.
    """

    step: int
    tap: str
    before: Stage
    after: Stage
    blueprint: str
    reason: str

    @classmethod
    def of(cls, values: Sequence[Any]) -> Self:
        """An event of JSON values."""
        step, tap, before, after, blueprint, reason = values
        return cls(int(step), str(tap), Stage(before), Stage(after), str(blueprint), str(reason))


class Measurement(NamedTuple):
    """What was measured at a decision.

    Attributes:
        step: training time [optimizer steps].
        loss: the loss of the network on the split `guard`.
        alphas: α of the growth seed at each tap; 0 without one.
        seed_weights: weights of all growth seeds [count].
    """

    step: int
    loss: float
    alphas: dict[str, float]
    seed_weights: int


class Refusal(NamedTuple):
    """A gate that a growth seed did not pass.

    Attributes:
        step: training time [optimizer steps].
        tap: name of the tap.
        stage: the stage in which the seed stays.
        blueprint: name of the blueprint.
        reason: why, for people.
    """

    step: int
    tap: str
    stage: Stage
    blueprint: str
    reason: str

    @classmethod
    def of(cls, values: Sequence[Any]) -> Self:
        """A refusal of JSON values."""
        step, tap, stage, blueprint, reason = values
        return cls(int(step), str(tap), Stage(stage), str(blueprint), str(reason))


@dataclass(frozen=True)
class GrowthHistory:
    """What happened to a network that grew.

    Attributes:
        settings: the settings of growth.
        host_weights: weights of the network without growth seeds [count].
        measurements: one per decision, the first before the first step.
        events: all changes of slots, in order.
        refusals: all gates that were asked for and not passed, in order.
        decisions: step and name of each action that was no WAIT.
    """

    settings: GrowthConfig
    host_weights: int
    measurements: list[Measurement]
    events: list[Event]
    refusals: list[Refusal]
    decisions: list[tuple[int, str]]

    def write(self, folder: Path) -> None:
        """Write it beside the snapshots.

        Raises:
            StorageError: the disk is full or not writable.
        """
        facts = {
            "settings": self.settings.to_mapping(),
            "host_weights": self.host_weights,
            "measurements": [[*each] for each in self.measurements],
            "events": [[*each] for each in self.events],
            "refusals": [[*each] for each in self.refusals],
            "decisions": [[*each] for each in self.decisions],
        }
        write_sealed(folder / GROWTH_FILE, facts)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read it from the folder of a trajectory.

        Raises:
            FileFormatError: the file is missing or damaged.
        """
        path = folder / GROWTH_FILE
        facts = read_sealed(path)
        try:
            return cls(
                GrowthConfig.from_mapping(facts["settings"]),
                int(facts["host_weights"]),
                [Measurement(*each) for each in facts["measurements"]],
                [Event.of(each) for each in facts["events"]],
                [Refusal.of(each) for each in facts["refusals"]],
                [(int(step), str(name)) for step, name in facts["decisions"]],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileFormatError(f"{path} is no history of a network that grew: {error}") from error
