"""Lineage: the chain from data sets and weight files over trajectories and checkpoints to a registered version.

Pure: `metaopt.operations.lineage_files` finds the nodes. A parent that cannot be found is a node too, with the reason,
so that neither the tree nor the figure has a silent gap.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.text import counted
from ..trajectories.origin import FIRST, KINDS, MODEL, TRAJECTORY, WEIGHTS, Generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..figures import Box

_DIGEST = 12  # characters of a digest that are shown [count]
_MOST_BOXES = 5  # boxes of one kind in a figure; more are joined if they are alike [count]


@dataclass(frozen=True)
class Node:
    """A data set, a weight file, a trajectory, a checkpoint or a registered version.

    Attributes:
        kind: one of `KINDS`.
        name: as users know it.
        digest: of its contents; empty if unknown.
        generator: what made it; None if it does not say.
        parents: keys of what it was made from.
        place: where it was found: a path, or a run.
        validation: the entry `validated` of the record that `metaopt validate` wrote: `level`, `checks` (versions by
            name), `sha256` and `time`; None without a record of these contents.
        missing: why it could not be found, in words; empty if it was.
    """

    kind: str
    name: str
    digest: str = ""
    generator: Generator | None = None
    parents: tuple[str, ...] = ()
    place: str = ""
    validation: Mapping[str, Any] | None = None
    missing: str = ""

    @property
    def key(self) -> str:
        """Identifies the node: its contents, and its name."""
        return f"{self.kind} {self.name} {self.digest}"

    @property
    def problem(self) -> str:
        """What the check finds wrong, in words; empty if nothing."""
        if self.missing:
            return self.missing
        if self.generator is None and self.kind != WEIGHTS:
            return "it does not say what made it"
        if self.kind not in FIRST and not self.parents:
            return "it names no parents"
        return ""

    def to_mapping(self) -> dict[str, Any]:
        """The node as JSON values."""
        generator = self.generator
        made_by = None if generator is None else {**vars(generator)}
        return {"key": self.key, "kind": self.kind, "name": self.name, "digest": self.digest, "generator": made_by,
                "parents": list(self.parents), "place": self.place, "validation": self.validation,
                "problem": self.problem or None}  # fmt: skip


@dataclass(frozen=True)
class Lineage:
    """The ancestors of something.

    Attributes:
        root: the key of that something.
        nodes: it and all its ancestors, by key. Each parent of a node is among them.
    """

    root: str
    nodes: Mapping[str, Node]

    def problems(self) -> list[str]:
        """A sentence for each missing link, none for a complete lineage."""
        children = self.children()
        return [_problem(node, [self.nodes[key] for key in children[node.key]]) for node in self if node.problem]

    def children(self) -> Mapping[str, Sequence[str]]:
        """The keys of what was made from each node."""
        found: dict[str, list[str]] = defaultdict(list)
        for node in self:
            for parent in node.parents:
                found[parent].append(node.key)
        return found

    def tree(self) -> str:
        """The lineage as text, from the root to the data; parents are indented. A node is explained once."""
        return "\n".join(self._lines(self.root, "", "", set()))

    def figure(self) -> "Figure":
        """The lineage as a drawing, from the data on the left to the root on the right."""
        from ..figures import flow_chart  # Matplotlib takes seconds to import

        root, problems = self.nodes[self.root], self.problems()
        numbers = {kind: sum(each.kind == kind for each in self) for kind in KINDS}
        kinds = [_counted(number, kind) for kind, number in numbers.items() if number]
        state = f"{counted(len(problems), 'missing link')}, dashed" if problems else "Every link was found"
        subtitle = f"{', '.join(kinds)}. {state}. Arrows lead from what was used to what was made of it."
        columns, links = self._boxes()
        return flow_chart(f"Lineage of {root.kind} {root.name.removeprefix('models:/')}", subtitle, columns, links)

    def to_mapping(self) -> dict[str, Any]:
        """The lineage as JSON values."""
        return {"root": self.root, "nodes": [node.to_mapping() for node in self], "problems": self.problems()}

    def __iter__(self) -> Iterator[Node]:
        """All nodes, each before its parents."""
        waiting, seen = [self.root], set()
        while waiting:
            key = waiting.pop(0)
            if key not in seen:
                seen.add(key)
                yield self.nodes[key]
                waiting += self.nodes[key].parents

    def _lines(self, key: str, first: str, rest: str, told: set[str]) -> Iterator[str]:
        node = self.nodes[key]
        line = f"{first}{node.kind} {node.name}"
        if key in told:
            yield f"{line}, as above"
            return
        told.add(key)
        yield line + "".join(f", {each}" for each in _details(node))
        for number, parent in enumerate(node.parents, 1):
            is_last = number == len(node.parents)
            branch, below = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
            yield from self._lines(parent, rest + branch, rest + below, told)

    def _boxes(self) -> "tuple[list[list[Box]], list[tuple[str, str]]]":
        """Boxes in columns, where many that are alike are one box, and the arrows between them."""
        from ..figures import Box

        groups: dict[Any, list[Node]] = defaultdict(list)
        children = self.children()
        for node in self:
            made = node.generator and (node.generator.command, node.generator.version)  # random seeds differ
            alike = (node.kind, node.parents, tuple(children[node.key]), made)
            is_many = sum(each.kind == node.kind for each in self) > _MOST_BOXES
            groups[alike if is_many and not node.problem else node.key].append(node)
        box_of = {node.key: number for number, members in enumerate(groups.values()) for node in members}
        columns: dict[int, list[Box]] = defaultdict(list)
        distances = self._distances()
        for number, members in enumerate(groups.values()):
            box = Box(str(number), *_box(members), is_missing=bool(members[0].problem))
            columns[distances[members[0].key]].append(box)
        pairs = {(str(box_of[parent]), str(box_of[node.key])): None for node in self for parent in node.parents}
        return [columns[distance] for distance in sorted(columns, reverse=True)], [*pairs]

    def _distances(self) -> dict[str, int]:
        """How many columns each node is before the root: before all that was made from it, but beside its own kind."""
        found = dict.fromkeys(self.nodes, 0)
        for _ in self.nodes:  # a circle, which only a forged origin has, ends with it
            before = dict(found)
            for node in self:
                for parent in node.parents:
                    further = found[node.key] + (self.nodes[parent].kind != node.kind)
                    found[parent] = max(found[parent], further)
            if found == before:
                break
        return found


def _counted(number: int, kind: str) -> str:
    return f"{number} trajectories" if kind == TRAJECTORY and number > 1 else counted(number, kind)


def _details(node: Node) -> Iterator[str]:
    if node.digest:
        yield node.digest[:_DIGEST]
    if node.generator is not None:
        yield f"by {node.generator}"
    if node.validation is not None:
        yield f"validated: {node.validation['level']}"
    if node.place:
        yield f"in {node.place}"
    if node.problem:
        yield f"MISSING LINK: {node.problem}"


def _problem(node: Node, children: Sequence[Node]) -> str:
    used = f", parent of {' and '.join(f'{each.kind} {each.name}' for each in children[:2])}" if children else ""
    more = f" and {len(children) - 2} more" if len(children) > 2 else ""
    return f"{node.kind} {node.name} ({node.digest[:_DIGEST] or 'no digest'}){used}{more}: {node.problem}"


def _box(members: Sequence[Node]) -> tuple[str, str, list[str]]:
    """Kind, title and further lines of a box."""
    node = members[0]
    made = [] if node.generator is None else [f"by {node.generator.command}", f"metaopt {node.generator.version}"]
    if len(members) > 1:
        names = sorted((each.name for each in members), key=lambda name: (len(name), name))
        return _counted(len(members), node.kind), f"{names[0]} … {names[-1]}", made
    digest = [f"digest {node.digest[:8]}"] if node.digest else []
    name = node.name.removeprefix("models:/").replace("/", " version ") if node.kind == MODEL else node.name
    kind = f"{node.kind}, missing" if node.missing else node.kind
    return kind, name, [*digest, *made, *filter(None, [node.problem])]
