"""Rules for the facts of files, by kind: which facts there are, and which values they may have.

`FACTS` is the one description of what readers accept; `docs/formats.md` states it in words. Facts without a rule are
allowed and not used.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..core.errors import FileFormatError
from ..core.text import shown

_MAX_COUNT = 2**53  # exact in a float


@dataclass(frozen=True)
class Rule:
    """The rule of one fact.

    Args:
        expected: the valid values, in words.
        holds: whether a value is valid.
        required: whether the fact must be present.
        fields: rules for the entries of a mapping.
    """

    expected: str
    holds: Callable[[Any], bool]
    required: bool = True
    fields: "Mapping[str, Rule] | None" = None

    @property
    def optional(self) -> "Rule":
        """The same rule for a fact that may be absent."""
        return replace(self, required=False)


def first_violation(facts: Mapping[str, Any], rules: Mapping[str, Rule]) -> str | None:
    """The first fact that breaks its rule, in words; None if all rules hold."""
    for name, rule in rules.items():
        if name not in facts:
            if rule.required:
                return f"it has no {name}; expected {rule.expected}"
            continue
        value = facts[name]
        if not rule.holds(value):
            return f"its {name} is {shown(value)}; expected {rule.expected}"
        if rule.fields and (violation := first_violation(value, rule.fields)):
            return f"in its {name}, {violation}"
    return None


def check_fields(values: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Check values by rules.

    Raises:
        FileFormatError: a value breaks its rule.
    """
    if violation := first_violation(values, rules):
        raise FileFormatError(violation)


def is_number(value: Any) -> bool:
    """Whether a value is a number, of any size or NaN; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return is_number(value) and (isinstance(value, int) or math.isfinite(value))


TEXT = Rule("text", lambda value: isinstance(value, str))
COUNT = Rule("a whole number of 0 or more", lambda value: type(value) is int and 0 <= value < _MAX_COUNT)
FINITE = Rule("a finite number", _is_finite)
DECAY = Rule("a decay of 0 or more and below 1", lambda value: _is_finite(value) and 0 <= value < 1)
MAPPING = Rule("names and values", lambda value: isinstance(value, dict))
LAYOUT = Rule("a list of [name, shape, dtype]", lambda value: isinstance(value, list))  # Layout.from_list checks it
LOSSES = Rule(
    "numbers by name", lambda value: isinstance(value, dict) and all(is_number(each) for each in value.values())
)
GROWTH = Rule(
    "a list of growth seeds", lambda value: isinstance(value, list) and all(isinstance(each, dict) for each in value)
)  # metaopt.growth.grow checks them
RUN = Rule(
    "names and values", MAPPING.holds, fields={"averaging": DECAY.optional, "adapter": MAPPING.optional}
)  # metaopt.adapters.insert_adapters checks the adapter
OPTIMIZER = Rule("name and config", MAPPING.holds, fields={"name": TEXT, "config": MAPPING})

TEXTS = Rule("a list of texts", lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value))
WIDTHS = Rule(
    "a list of widths", lambda value: isinstance(value, list) and all(type(x) is int and 1 <= x <= 4096 for x in value)
)
_POLICY = {"actions": TEXTS, "observations": TEXTS, "hidden": WIDTHS, "growth": MAPPING}

FACTS: Mapping[str, Mapping[str, Rule]] = {
    "snapshot": {
        "layout": LAYOUT,
        "segment": COUNT,
        "step": COUNT,
        "epoch": COUNT,
        "losses": LOSSES,
        "previous": COUNT.optional,
        "growth": GROWTH.optional,
        "run": RUN,
    },
    "frozen": {"run": RUN},
    "weights": {
        "model": TEXT.optional,
        "t_start": FINITE.optional,
        "t_end": FINITE.optional,
        "run": RUN.optional,
        "growth": GROWTH.optional,
    },
    "optimizer": {"optimizer": OPTIMIZER},
    "policy": {"policy": Rule("actions, observations, hidden and growth", MAPPING.holds, fields=_POLICY)},
    "checkpoint": {
        "state": MAPPING,
        "run": RUN.optional,
        "optimizer": OPTIMIZER.optional,
        "settings": MAPPING.optional,
    },
}
"""The rules of each kind of file."""

TARGET_RUN: Mapping[str, Rule] = {
    "task": TEXT,
    "task_config": MAPPING,
    "target_model": TEXT,
    "target_config": MAPPING,
}
"""Rules for the facts of a run from which its task and its network are built again."""
