"""What a controller can do. The actions follow from the blueprints: a new one adds an action, with no other change."""

from collections.abc import Sequence
from typing import NamedTuple

from ..core.errors import InvalidConfig
from ..core.text import shown
from .blueprints import blueprints_of
from .gates import NEXT, least_steps
from .growth import Growth
from .stages import Stage


class Action(NamedTuple):
    """Something that a controller can do.

    Attributes:
        name: its name, such as "GERMINATE_CONV".
        kind: "wait", "germinate", "advance", "cull" or "nowcast".
        argument: name of a blueprint, or a horizon [steps]; empty without one.
    """

    name: str
    kind: str
    argument: str = ""


def actions_of(topology: str, horizons: Sequence[int] = ()) -> list[Action]:
    """All actions in a network whose features have a topology, in a fixed order.

        from metaopt.growth.actions import actions_of

        [action.name for action in actions_of("vector")]
        # ["WAIT", "GERMINATE_LORA", "GERMINATE_MLP", "GERMINATE_NORM", "ADVANCE", "CULL"]

    Args:
        horizons: horizons of nowcasts that can be asked for [steps].
    Raises:
        InvalidConfig: there is no such topology.
    """
    germinate = [Action(f"GERMINATE_{each.name.upper()}", "germinate", each.name) for each in blueprints_of(topology)]
    nowcast = [Action(f"NOWCAST_{horizon}", "nowcast", str(horizon)) for horizon in horizons]
    return [Action("WAIT", "wait"), *germinate, Action("ADVANCE", "advance"), Action("CULL", "cull"), *nowcast]


def topology_of(growth: Growth) -> str:
    """The topology of all slots.

    Raises:
        InvalidConfig: they have several.
    """
    found = sorted({slot.topology for slot in growth.slots.values()})
    if len(found) > 1:
        raise InvalidConfig(
            f"the taps have the topologies {', '.join(found)}; expected taps of one topology, whose blueprints are the "
            "actions of a controller"
        )
    return found[0]


def mask(growth: Growth, actions: Sequence[Action]) -> list[bool]:
    """Which actions the life cycle of the slot in focus allows now."""
    slot = growth.focus
    allowed = {"wait": True, "germinate": False, "advance": False, "cull": False, "nowcast": growth.can_nowcast}
    if slot is not None:
        in_time = growth.step - slot.since >= least_steps(slot.stage, growth.config)
        allowed["germinate"] = slot.stage is Stage.DORMANT
        allowed["advance"] = slot.stage in NEXT and in_time
        allowed["cull"] = slot.stage.is_cullable
    return [allowed[action.kind] for action in actions]


def perform(growth: Growth, action: Action) -> None:
    """Perform an action on the slot in focus.

    Raises:
        InvalidConfig: the life cycle does not allow it now.
    """
    slot = growth.focus
    if not mask(growth, [action])[0]:
        where = "no slot" if slot is None else f"{slot.tap}, which is {slot.stage}"
        raise InvalidConfig(f"{shown(action.name)} is not possible now: the slot in focus is {where}")
    if action.kind == "nowcast":
        growth.nowcast(int(action.argument))
    elif slot is not None and action.kind == "germinate":
        growth.germinate(slot.tap, action.argument)
    elif slot is not None and action.kind == "advance":
        growth.advance(slot.tap)
    elif slot is not None and action.kind == "cull":
        growth.cull(slot.tap)
