"""Deep checks between recordings: none is there twice, and nothing of the training is in what is held out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...core.errors import FileFormatError, MetaoptError
from ...core.text import shown
from ...metatraining.trained import FACTS
from ...trajectories.checkpoint import KIND
from ...weights.facts import TEXTS, first_violation
from ...weights.files import read_facts
from .base import DEEP, CannotCheck, Check, Finding
from .fingerprints import Fingerprint
from .subjects import Subject

_NAMES = {"training_names": TEXTS, "held_out_names": TEXTS}


class RepeatedRecordings(Check):
    """No other trajectory is equal or nearly equal under another name."""

    level = DEEP
    kinds = ("trajectory",)

    def check(self, subject: Subject) -> Iterator[Finding]:
        """One finding for each earlier trajectory that this one repeats."""
        for other in _fingerprints(subject.of_kind(subject.earlier)):
            if (copy := subject.fingerprint.likeness(other)) is not None:
                yield Finding(subject.name, f"it {copy}. Remove one of them: what is counted twice weighs twice")


class HeldOutLeakage(Check):
    """Training and held-out trajectories share no random seed, no initial weights and no weights.

    A checkpoint of phase 2 names both; the trajectories themselves are those of `--against`, on the other side.
    """

    level = DEEP
    kinds = ("trajectory", "checkpoint")

    def check(self, subject: Subject) -> Iterator[Finding]:
        """One finding for each pair that has something in common."""
        if subject.kind == "checkpoint":
            yield from _leaks_of_checkpoint(subject)
            return
        others = subject.of_kind(subject.against)
        if not others:
            raise CannotCheck("no trajectory is given with --against")
        for other in _fingerprints(others):
            yield from (_leak(subject.name, reason) for reason in subject.fingerprint.leaks(other))


def _leaks_of_checkpoint(subject: Subject) -> Iterator[Finding]:
    facts = read_facts(subject.path, KIND)
    training = facts.get(FACTS)
    if not isinstance(training, Mapping) or "optimizer" not in facts:
        raise CannotCheck("it is not of phase 2, or does not name its trajectories")
    if violation := first_violation(training, _NAMES):
        raise FileFormatError(f"the facts of the training of {subject.path} are invalid: {violation}; copy it again")
    names, held_out_names = training["training_names"], training["held_out_names"]
    if not held_out_names:
        raise CannotCheck("it names no held-out trajectories")
    for name in sorted({*names} & {*held_out_names}):
        yield _leak(subject.name, f"names {shown(name)} as training and as held-out trajectory")
    seen = _named(names, subject)
    held_out = _named(held_out_names, subject)
    stored = facts.get("settings", {}).get("trajectories", [])
    for name, each in held_out.items():
        if each.digest in stored:
            yield _leak(subject.name, f"was trained on the weights of {shown(name)}, which it names as held out")
        for other in seen.values():
            yield from (_leak(subject.name, f"holds out {each.name}, which {why}") for why in each.leaks(other))
    if missing := [name for name in [*names, *held_out_names] if name not in seen and name not in held_out]:
        raise CannotCheck(
            f"{len(missing)} of its trajectories cannot be read in {subject.settings.trajectory_dir}, such as "
            f"{shown(missing[0])}"
        )


def _named(names: Sequence[str], subject: Subject) -> dict[str, Fingerprint]:
    """Fingerprints of the trajectories that a checkpoint names; those that cannot be read are left out."""
    found = dict[str, Fingerprint]()
    for name in names:
        if len(Path(name).parts) != 2 or ".." in name or "\0" in name or Path(name).is_absolute():
            continue  # a file must not choose what is read
        place = Subject("trajectory", subject.settings.trajectory_dir / name)
        with suppress(MetaoptError):
            found[name] = place.fingerprint
    return found


def _fingerprints(subjects: Sequence[Subject]) -> Iterator[Fingerprint]:
    """Fingerprints of trajectories; those that are damaged have findings of their own."""
    for each in subjects:
        try:
            yield each.fingerprint
        except MetaoptError:
            continue


def _leak(where: str, reason: Any) -> Finding:
    return Finding(where, f"it {reason}. Results on it say nothing about other runs: hold out another one")
