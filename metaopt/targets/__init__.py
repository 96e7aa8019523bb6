"""Target networks. One file each; one line in this table each."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..registry import Registry
from .target_cnn import TargetCNN

TARGETS = Registry(
    "target model",
    "metaopt.targets",
    {
        "MLP": "metaopt.targets.mlp:MLP",
        "ResNet18": "metaopt.targets.resnet18:ResNet18",
        "TargetCNN": "metaopt.targets.target_cnn:TargetCNN",
    },
)


def get_target_model(name: str, **config: Any) -> nn.Module:
    """Build a target network by name.

    Raises:
        UnknownName: no such network; the message lists the nearest names.
        InvalidConfig: a keyword is not one of its parameters, or has a value it cannot take.
    """
    kind = TARGETS.get(name)
    return kind(kind.Config.from_mapping(config))


def target_config(name: str, model_facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The full configuration of a target: what the task's data asks for, then the user's own options.

    Raises:
        UnknownName: no such network.
        InvalidConfig: an option that the network does not have, or a value it cannot take.
    """
    kind = TARGETS.get(name)
    wanted = set(kind.Config.names())
    facts = {fact: value for fact, value in model_facts.items() if fact in wanted}
    return kind.Config.from_mapping({**facts, **options}).to_mapping()


__all__ = ["TARGETS", "TargetCNN", "get_target_model", "target_config"]
