"""Controllers without a policy: what they choose from an observation and the allowed actions."""

import pytest

from metaopt.core.errors import InvalidConfig, UnknownName
from metaopt.growth.actions import actions_of
from metaopt.growth.controllers import built_in
from metaopt.growth.observation import NAMES

ACTIONS = actions_of("cnn")
KINDS = {"dormant": ("wait", "germinate"), "gated": ("wait", "advance", "cull"), "blending": ("wait", "cull")}


def chosen(name, kind, **numbers):
    """The name of the action that a controller chooses; numbers are by the start of their names."""
    observation = [0.0] * len(NAMES)
    for start, number in numbers.items():
        (index,) = [index for index, each in enumerate(NAMES) if each.replace(" ", "_").startswith(start)]
        observation[index] = number
    allowed = [action.kind in KINDS[kind] for action in ACTIONS]
    index = built_in(name, ACTIONS, "conv", seed=0).decide(observation, allowed)
    assert allowed[index]
    return ACTIONS[index].name


@pytest.mark.parametrize(
    ("name", "kind", "numbers", "action"),
    [
        ("wait", "dormant", {}, "WAIT"),
        ("wait", "gated", {}, "WAIT"),
        ("schedule:norm@0.2", "dormant", {"share_of_the_steps": 0.19}, "WAIT"),
        ("schedule:norm@0.2", "dormant", {"share_of_the_steps": 0.2}, "GERMINATE_NORM"),
        ("schedule:norm@0.2", "gated", {}, "ADVANCE"),
        ("schedule:norm@0.2", "blending", {"share_of_the_steps": 0.9}, "WAIT"),
        ("heuristic", "dormant", {"share_of_the_steps": 0.09, "change_of_the_loss_over_sigma,": -9.0}, "WAIT"),
        ("heuristic", "dormant", {"share_of_the_steps": 0.1, "change_of_the_loss_over_sigma,": -9.0}, "GERMINATE_CONV"),
        (
            "heuristic",
            "dormant",
            {"share_of_the_steps": 0.01, "change_of_the_loss_over_sigma,": -0.4},
            "GERMINATE_CONV",
        ),
        ("heuristic", "gated", {"gain": -1.0, "decisions_in_this_stage": 0.5}, "ADVANCE"),
        ("heuristic", "gated", {"gain": -1.0, "decisions_in_this_stage": 0.6}, "CULL"),
        ("heuristic", "gated", {"gain": 1.0, "decisions_in_this_stage": 0.6}, "ADVANCE"),
        ("heuristic", "blending", {"gain": 0.0, "decisions_in_this_stage": 0.6}, "CULL"),
    ],
)
def test_what_controllers_choose(name, kind, numbers, action):
    assert chosen(name, kind, **numbers) == action


@pytest.mark.parametrize("kind", KINDS)
def test_random_actions_are_allowed_follow_from_the_time_and_differ(kind):
    found = [chosen("random", kind, share_of_the_steps=step / 50) for step in range(50)]
    assert found == [chosen("random", kind, share_of_the_steps=step / 50) for step in range(50)]
    assert len(set(found)) == sum(action.kind in KINDS[kind] for action in ACTIONS)


def test_unknown_names_and_schedules_are_refused():
    assert built_in("nobody", ACTIONS, "conv", 0) is None
    with pytest.raises(UnknownName, match="no blueprint 'lora'"):
        built_in("schedule:lora@0.2", ACTIONS, "conv", 0)
    with pytest.raises(InvalidConfig, match=r"such as schedule:conv@0\.2"):
        built_in("schedule:conv@2", ACTIONS, "conv", 0)
