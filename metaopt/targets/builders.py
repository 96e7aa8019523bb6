"""What the name of a target stands for: a way to configure a network and a way to build it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn


class Builder(Protocol):
    """Makes networks of one name, wherever their code comes from."""

    def configure(self, facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Everything that `build` needs: what the data asks for, then the user's own options.

        Raises:
            InvalidConfig: an option that the network does not have, or a value it cannot take.
        """

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A network with fresh weights.

        Raises:
            InvalidConfig: as for `configure`; configurations come from files, too.
        """


@dataclass(frozen=True)
class ConfiguredBuilder:
    """Builds a class that has a `Config`: ours, and those of plug-ins."""

    kind: Any

    def configure(self, facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """The facts that the `Config` has a field for, then the options."""
        known = {name: facts[name] for name in self.kind.Config.names() if name in facts}
        config: dict[str, Any] = self.kind.Config.from_mapping({**known, **options}).to_mapping()
        return config

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """An instance of the class."""
        network: nn.Module = self.kind(self.kind.Config.from_mapping(config))
        return network
