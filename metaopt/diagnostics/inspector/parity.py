"""Compares two networks by the names and shapes of their tensors, also across two namings."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ...adapters.aliases import AliasTable
from ...core.errors import InvalidConfig
from ...weights.networks import Network

Shape = tuple[int, ...]

KINDS = ("missing", "extra", "shape")
"""Kinds of differences: a network lacks a tensor of the other one, has another one, or has it in another shape."""


class Difference(NamedTuple):
    """A tensor that only one of two networks has, or that has two shapes.

    Attributes:
        name: its name in the first network, or in the second one, if only that has it.
        other_name: its name in the second network; None if only one has it.
        shape: in the first network; None if it lacks the tensor.
        other_shape: in the second network; None if it lacks the tensor.
    """

    name: str
    other_name: str | None
    shape: Shape | None
    other_shape: Shape | None

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return "missing" if self.shape is None else "extra" if self.other_shape is None else "shape"


@dataclass(frozen=True)
class Parity:
    """How far two networks agree.

    Attributes:
        network, other: their names.
        equal: number of tensors with the same name and shape in both.
        renamed: how many of these have two names, which a table of aliases or a prefix joins.
        other_dtypes: how many of these have two dtypes.
        differences: all others, in order.
    """

    network: str
    other: str
    equal: int
    renamed: int
    other_dtypes: int
    differences: tuple[Difference, ...] = field(repr=False)

    def of_kind(self, kind: str) -> list[Difference]:
        """The differences of one kind."""
        return [each for each in self.differences if each.kind == kind]


def compare(network: Network, other: Network, aliases: AliasTable | None) -> Parity:
    """Compare names and shapes of two networks.

    Args:
        aliases: other spellings of names; tensors are then also the same if only a prefix of the whole network differs.
            None compares the names as they are.
    """
    ours, theirs = (_comparable(each, aliases) for each in (network, other))
    both = [(ours[name], theirs[name]) for name in ours if name in theirs]
    same = [pair for pair in both if network.tensors[pair[0]].shape == other.tensors[pair[1]].shape]
    shapes, other_shapes = ({name: each.shape for name, each in one.tensors.items()} for one in (network, other))
    differences = [Difference(own, None, shapes[own], None) for name, own in ours.items() if name not in theirs]
    differences += [Difference(own, None, None, other_shapes[own]) for name, own in theirs.items() if name not in ours]
    differences += [
        Difference(one, two, shapes[one], other_shapes[two]) for one, two in both if shapes[one] != other_shapes[two]
    ]
    return Parity(
        network.name,
        other.name,
        equal=len(same),
        renamed=sum(one != two for one, two in same),
        other_dtypes=sum(network.tensors[one].dtype != other.tensors[two].dtype for one, two in same),
        differences=tuple(differences),
    )


def paired(networks: Sequence[Network], others: Sequence[Network]) -> list[tuple[Network, Network]]:
    """Which networks to compare: those of one expert or of one name; a single one with all.

    Raises:
        InvalidConfig: there are several on both sides, and their names differ.
    """
    by_name, others_by_name = ({each.expert or each.name: each for each in one} for one in (networks, others))
    if by_name.keys() == others_by_name.keys() and len(by_name) == len(networks) == len(others):
        return [(each, others_by_name[name]) for name, each in by_name.items()]
    if len(networks) == 1 or len(others) == 1:
        return [(one, two) for one in networks for two in others]
    names = " and ".join(", ".join(each.name for each in one[:5]) for one in (networks, others))
    raise InvalidConfig(
        f"cannot tell which of {len(networks)} and {len(others)} networks to compare ({names}); expected one on a "
        "side, or the same names: give a file in place of a folder"
    )


def _comparable(network: Network, aliases: AliasTable | None) -> dict[str, str]:
    """The names of tensors by the names under which they are compared."""
    if aliases is None:
        return {name: name for name in network.tensors}
    return {comparable: name for name, comparable in aliases.comparable(network.tensors).items()}
