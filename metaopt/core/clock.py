"""The clock of trainings: at which steps something that happens periodically is due.

Snapshots, nowcasts, measurements and checkpoints ask it, as do the levels of nested learning, which learn at their own
pace (Behrouz et al. 2025, arXiv:2512.24695).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import CheckpointError, InvalidConfig
from .text import shown


def fires(step: int, period: int, phase: int = 0, warm_up: int = 0) -> bool:
    """Whether something periodic is due after a step: i > 0, i ≥ warm_up and i mod period = phase."""
    return step > 0 and step >= warm_up and step % period == phase


@dataclass(frozen=True)
class LevelSpec:
    """When a level is due: at the steps i > 0 with i ≥ warm_up and i mod period = phase.

        from metaopt.core.clock import LevelSpec

        slow = LevelSpec("slow", period=16)
        assert [step for step in range(50) if slow.fires(step)] == [16, 32, 48]

    Args:
        name: name of the level.
        period: steps from one time to the next [steps].
        phase: remainder of the steps at which it is due [steps].
        warm_up: first step at which it can be due [steps].
    Raises:
        InvalidConfig: the name is no text, a number is not an integer, the period is below 1, the phase is not in
            [0, period), or `warm_up` is negative.
    """

    name: str
    period: int = 1
    phase: int = 0
    warm_up: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise InvalidConfig(f"the name of a level is {shown(self.name)}; expected text, such as 'slow'")
        bounds = (("period", 1, None), ("phase", 0, self.period), ("warm_up", 0, None))
        for name, least, bound in bounds:
            value = getattr(self, name)
            is_integer = isinstance(value, int) and not isinstance(value, bool)
            if not is_integer or value < least or (bound is not None and value >= bound):
                limit = f"an integer from {least}" + (f" to below the period, {bound}" if bound is not None else "")
                raise InvalidConfig(f"{name} of the level {shown(self.name)} is {shown(value)}; expected {limit}")

    def fires(self, step: int) -> bool:
        """Whether the level is due after a step."""
        return fires(step, self.period, self.phase, self.warm_up)

    def count(self, step: int) -> int:
        """How many times the level was due up to a step [count]: ⌊step / period⌋ without phase and warm-up."""
        before_first = max(self.warm_up, 1) - 1
        return self._up_to(max(step, before_first)) - self._up_to(before_first)

    def _up_to(self, step: int) -> int:
        """How many of the steps 0 to `step` have the remainder `phase`."""
        return (step - self.phase) // self.period + 1


class LevelClock:
    """Counts the steps of a training and tells which levels are due.

        from metaopt.core.clock import LevelClock, LevelSpec

        clock = LevelClock([LevelSpec("fast"), LevelSpec("slow", period=4)])
        assert [clock.tick() for _ in range(4)][-1] == ("fast", "slow")
        assert clock.counts() == {"fast": 4, "slow": 1}

    It is a counter of the host: no level waits for a device.

    Args:
        levels: the levels, in the order in which `tick` names them.
        step: steps so far.
    Raises:
        InvalidConfig: there is no level, one is not a `LevelSpec`, or two have the same name.
    """

    def __init__(self, levels: Iterable[LevelSpec], step: int = 0) -> None:
        self.levels: dict[str, LevelSpec] = {}
        if not isinstance(levels, Iterable):
            raise InvalidConfig(f"levels is {shown(levels)}; expected a list, such as [LevelSpec('slow', 16)]")
        for level in levels:
            if not isinstance(level, LevelSpec):
                raise InvalidConfig(f"a level is {shown(level)}; expected a LevelSpec, such as LevelSpec('slow', 16)")
            if level.name in self.levels:
                raise InvalidConfig(f"two levels have the name {shown(level.name)}; expected one of each name")
            self.levels[level.name] = level
        if not self.levels:
            raise InvalidConfig("a clock without levels; expected at least one LevelSpec")
        self.step = step

    def tick(self) -> tuple[str, ...]:
        """Count a step; the names of the levels that are due after it."""
        self.step += 1
        return self.due()

    def due(self, ahead: int = 0) -> tuple[str, ...]:
        """The names of the levels that are due after the present step, or after a later one.

        Args:
            ahead: how much later [steps].
        """
        return tuple(name for name, level in self.levels.items() if level.fires(self.step + ahead))

    def counts(self) -> dict[str, int]:
        """How many times each level was due so far [count]."""
        return {name: level.count(self.step) for name, level in self.levels.items()}

    def state_dict(self) -> dict[str, Any]:
        """The number of steps, and the levels to which it belongs."""
        return {"step": self.step, "levels": [_fields(level) for level in self.levels.values()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: the state is of a clock with other levels, or damaged; the clock is unchanged.
        """
        if not isinstance(state, Mapping) or set(state) != {"step", "levels"}:
            raise CheckpointError(f"the state of a clock is {shown(state)}; expected `step` and `levels`")
        step, levels, ours = state["step"], state["levels"], [_fields(level) for level in self.levels.values()]
        is_list = isinstance(levels, list | tuple) and all(isinstance(level, list | tuple) for level in levels)
        if not is_list or [list(level) for level in levels] != ours:
            raise CheckpointError(f"a clock of the levels {shown(levels)}; expected {shown(ours)}")
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise CheckpointError(f"a clock at step {shown(step)}; expected 0 or more")
        self.step = step


def _fields(level: LevelSpec) -> list[Any]:
    return [level.name, level.period, level.phase, level.warm_up]
