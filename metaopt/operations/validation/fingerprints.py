"""Fingerprints of trajectories: small, so that each of hundreds can be compared with all others."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...core.text import shown
from ...trajectories import Trajectory
from ...weights.layout import Layout

_SAMPLED = 1024  # weights of each snapshot, evenly spaced [count]
_NEAR = 0.01  # distance of two trajectories, over how far the farther one has moved

_PROBLEM = ("task", "task_config", "target_model", "target_config", "adapter")


@dataclass(frozen=True)
class Fingerprint:
    """What is compared of a trajectory: its last segment.

    Attributes:
        name: run name and random seed.
        digest: of the weights and facts of all snapshots.
        layout: of the weights.
        steps: of the snapshots [steps].
        weights: a sample of the weights of each.
        problem: the task and the network.
        seed: the random seed; None if the run does not state one.
        starts_alike: whether runs with other random seeds start from the same weights, as fine-tunings do.
    """

    name: str
    digest: str
    layout: Layout
    steps: list[int]
    weights: Float[Tensor, "snapshots sample"] = field(repr=False)
    problem: list[Any]
    seed: Any
    starts_alike: bool

    def likeness(self, other: "Fingerprint") -> str | None:
        """In which way another trajectory is a copy of this one, as the end of a sentence; None if it is none."""
        if self.digest == other.digest:
            return f"has the same weights and facts as {other.name}"
        common = [step for step in self.steps if step in set(other.steps)]
        if self.layout != other.layout or not common:
            return None
        mine, others = self._at(common[-1]), other._at(common[-1])
        moved = max(float((mine - self.weights[0]).norm()), float((others - other.weights[0]).norm()))
        apart = float((mine - others).norm())
        if moved == 0 or apart > _NEAR * moved:
            return None
        return (
            f"is nearly {other.name}: at step {common[-1]} their weights differ by {apart / moved:.2g} "
            "of how far they have moved"
        )

    def leaks(self, other: "Fingerprint") -> Iterator[str]:
        """What a held-out trajectory has in common with this one that it must not, as ends of sentences."""
        if (copy := self.likeness(other)) is not None:
            yield copy
        elif self.seed is not None and (self.seed, self._kind) == (other.seed, other._kind):
            yield (
                f"has the random seed {shown(self.seed)} of {other.name} on the same task and network, so the same "
                "initial weights and batches"
            )
        elif self._starts_as(other):
            yield f"starts from the weights from which {other.name} starts"

    @property
    def _kind(self) -> tuple[object, Layout]:
        return self.problem, self.layout

    def _starts_as(self, other: "Fingerprint") -> bool:
        if self.starts_alike or other.starts_alike or self.layout != other.layout:
            return False
        return self.steps[0] == other.steps[0] and torch.equal(self.weights[0], other.weights[0])

    def _at(self, step: int) -> Float[Tensor, " sample"]:
        return self.weights[self.steps.index(step)]


def fingerprint_of(trajectory: Trajectory) -> Fingerprint:
    """The fingerprint of a trajectory.

    Raises:
        FileFormatError: a file is damaged.
    """
    layout, start, stop, _ = trajectory.segments[-1]
    places = torch.linspace(0, layout.size - 1, min(_SAMPLED, layout.size), dtype=torch.float64).round().long()
    weights = torch.stack([trajectory.weights(index)[places] for index in range(start, stop)])
    run = trajectory.run
    return Fingerprint(
        name=trajectory.name,
        digest=trajectory.digest,
        layout=layout,
        steps=trajectory.steps[start:stop],
        weights=weights,
        problem=[run.get(name) for name in _PROBLEM],
        seed=run.get("seed"),
        starts_alike="initial_weights" in run,
    )
