"""Policies: controllers that phase 3 has trained, and their files. A file is tensors and JSON; it runs no code."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.errors import FileFormatError, InvalidConfig, LayoutMismatch
from ..core.rng import isolated
from ..weights.building import check_finite
from ..weights.files import read_tensors, write_tensors
from .actions import Action
from .observation import NAMES

KIND = "policy"
"""Kind of the files."""


class Policy(nn.Module):
    """A multilayer perceptron with tanh that maps an observation to a logit of each action; the controller of a file.

        from metaopt.growth.actions import actions_of
        from metaopt.growth.policy import Policy

        policy = Policy([action.name for action in actions_of("cnn")])
        policy.decide([0.0] * 23, [name == "WAIT" for name in policy.actions])  # 0

    Args:
        actions: names of the actions, in order.
        hidden: widths of the hidden layers.
        growth: settings of growth with which it was trained, as plain values.
    Raises:
        InvalidConfig: there are no actions, or a width is below 1.
    """

    def __init__(
        self, actions: Sequence[str], hidden: Sequence[int] = (64, 64), growth: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        if not actions or min(hidden, default=1) < 1:
            raise InvalidConfig(
                f"a policy of {len(actions)} actions with layers {list(hidden)}; expected 1 or more each"
            )
        self.actions, self.hidden, self.growth = [*actions], [*hidden], dict(growth or {})
        widths = [len(NAMES), *hidden]
        layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.Tanh())]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], len(actions)))

    def forward(self, observations: Float[Tensor, "*batch 23"]) -> Float[Tensor, "*batch actions"]:
        """A logit of each action."""
        return self.layers(observations)

    @torch.no_grad()
    def decide(self, observation: Sequence[float], allowed: Sequence[bool]) -> int:
        """The index of the allowed action with the largest logit."""
        weight = next(self.parameters())
        logits = self(torch.tensor(observation, dtype=weight.dtype, device=weight.device))
        return int(logits.masked_fill(~torch.tensor(allowed, device=weight.device), -torch.inf).argmax())

    def check_actions(self, actions: Sequence[Action]) -> None:
        """Check that it was trained for these actions.

        Raises:
            InvalidConfig: for others; the message names those that differ.
        """
        names = [action.name for action in actions]
        if names != self.actions:
            missing = ", ".join(name for name in self.actions if name not in names)
            new = ", ".join(name for name in names if name not in self.actions)
            raise InvalidConfig(
                f"the policy was trained for other actions: it does not know {new or 'their order'}, and knows "
                f"{missing or 'nothing'} that this network has not. Train one for these taps and blueprints with "
                "`metaopt train-controller`"
            )


def save_policy(policy: Policy, path: Path, facts: Mapping[str, Any] | None = None) -> None:
    """Save a policy to one file, which `load_policy` can read.

    Args:
        facts: additional JSON-serialisable values to store.
    Raises:
        StorageError: the file cannot be written; an existing file is unchanged.
    """
    write_tensors(path, policy.state_dict(), KIND, {**(facts or {}), "policy": description_of(policy)})


def description_of(policy: Policy) -> dict[str, Any]:
    """What `build_policy` needs beside the tensors, as JSON values."""
    return {"actions": policy.actions, "observations": [*NAMES], "hidden": policy.hidden, "growth": policy.growth}


def load_policy(path: Path) -> Policy:
    """Load a policy; no code of the file runs.

    Raises:
        FileFormatError: the file is damaged, of another kind, or a policy for other observations.
    """
    tensors, facts = read_tensors(path, KIND)
    return build_policy(path, facts["policy"], tensors)


def build_policy(path: Path, described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Policy:
    """The policy that the facts of a file describe.

    Raises:
        FileFormatError: the facts or the tensors are invalid, or those of other observations.
    """
    try:
        if described["observations"] != [*NAMES]:
            raise LayoutMismatch("it sees other observations than this version of metaopt gives")
        check_finite(tensors)
        with isolated():
            policy = Policy(described["actions"], described["hidden"], described["growth"])
        policy.load_state_dict(dict(tensors))
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise FileFormatError(f"{path} is no policy that can be used: {error}. Train it again") from error
    return policy.eval().requires_grad_(False)
