"""What a network that grew has become: metrics, a sentence, and a report in Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from ..core.documents import Section, markdown
from ..core.text import counted
from ..growth.config import GrowthConfig
from ..growth.gates import NEXT
from ..growth.history import Event, GrowthHistory
from ..growth.stages import Stage

_NONE = "–"  # in a cell

_TWINS = """\
Validation losses at the end. Twins have the same random seed and batches: *static* is the host alone, *equal-size* a \
network that has the final growth seeds from the start. Below 1, the network that grew is better."""

_GATES = "A growth seed enters its next stage only through a gate. Gates that refused it several times are one row."


def growth_metrics(history: GrowthHistory) -> dict[str, float]:
    """`growth_weights`, weights of all growth seeds, and `alpha/<tap>`, at the last measurement."""
    last = history.measurements[-1]
    return {"growth_weights": float(last.seed_weights), **{f"alpha/{tap}": value for tap, value in last.alphas.items()}}


def describe_growth(history: GrowthHistory) -> str:
    """What grew, in a sentence."""
    lives = [*_lives(history)]
    weights = history.measurements[-1].seed_weights
    share = f" (+{weights / history.host_weights:.0%})" if weights else ""
    found = [f"{life.name} from step {life.kept:,}" for life in lives if life.kept is not None]
    found += [f"{life.name} is still {life.last.after}" for life in lives if life.is_in_progress]
    culled = sum(life.removed is not None for life in lives)
    what = ", ".join(found) or "nothing stays"
    return f"It grew by {weights:,} weights{share}: {what}; {counted(culled, 'seed')} removed."


def growth_report(
    title: str, controller: str, history: GrowthHistory, losses: Mapping[int, Mapping[str, float]] | None = None
) -> str:
    """The report of a network that grew, in Markdown.

    Args:
        title: network, task and random seed.
        controller: what decided, as `--controller` takes it.
        losses: by random seed, the validation losses at the end of the network that grew, first, and of its twins.
    """
    figure = "growth_and_twins" if losses else "growth"
    drawn = f"Figure: [{figure}.png]({figure}.png), [{figure}.svg]({figure}.svg)."
    sections = []
    if losses:
        sections.append(Section("Against its twins", (_twins_table(losses), _TWINS)))
    if lives := [*_lives(history)]:
        sections.append(Section("What grew", (_lives_table(lives),)))
    if gates := [*_gate_rows(history)]:
        sections.append(Section("Gates", ((["step", "seed", "gate", "passed", "why"], gates), _GATES)))
    introduction = [describe_growth(history), _overview(history, controller), drawn]
    return markdown(f"Growth of {title}", introduction, sections)


class _Life(NamedTuple):
    """The events of one growth seed, from its germination on, and its weights."""

    events: list[Event]
    weights: int

    @property
    def name(self) -> str:
        return f"{self.events[0].blueprint} at {self.events[0].tap}"

    @property
    def last(self) -> Event:
        return self.events[-1]

    @property
    def kept(self) -> int | None:
        return self.step_of(Stage.FOSSILIZED)

    @property
    def removed(self) -> int | None:
        return self.step_of(Stage.CULLED)

    @property
    def is_in_progress(self) -> bool:
        return self.kept is None and self.removed is None

    def step_of(self, stage: Stage) -> int | None:
        return next((event.step for event in self.events if event.after is stage), None)


def _lives(history: GrowthHistory) -> Iterator[_Life]:
    """All growth seeds, in the order in which they germinated."""
    for index, first in enumerate(history.events):
        if first.after is not Stage.GERMINATED:
            continue
        later = [event for event in history.events[index + 1 :] if event.tap == first.tap]
        ends = [number for number, event in enumerate(later) if event.after in (Stage.FOSSILIZED, Stage.CULLED)]
        yield _Life([first, *later[: ends[0] + 1 if ends else None]], _weights(history, first))


def _weights(history: GrowthHistory, germinated: Event) -> int:
    """Weights of a growth seed: what the weights of all seeds rise by at the measurement after it germinated."""
    before = [each.seed_weights for each in history.measurements if each.step <= germinated.step]
    after = [each.seed_weights for each in history.measurements if each.step > germinated.step]
    return max(0, after[0] - before[-1]) if before and after else 0


def _overview(history: GrowthHistory, controller: str) -> str:
    first, last = history.measurements[0], history.measurements[-1]
    total, settings, defaults = history.host_weights + last.seed_weights, history.settings.to_mapping(), GrowthConfig()
    changed = [f"{name}={value}" for name, value in settings.items() if value != defaults.to_mapping()[name]]
    refused = f", {counted(len(history.refusals), 'refusal')} by a gate" if history.refusals else ""
    lines = [
        f"- Weights: {history.host_weights:,} before, {total:,} after ({total / history.host_weights:.2f} times).",
        f"- Loss on the split guard: {first.loss:.4g} before the first step, {last.loss:.4g} at step {last.step:,}.",
        f"- Controller: `{controller}`, {counted(len(history.measurements) - 1, 'decision')}, "
        f"{len(history.decisions)} of them an action{refused}.",
    ]
    return "\n".join([*lines, f"- Settings: `{' '.join(changed)}`; the others are defaults."] if changed else lines)


def _lives_table(lives: Sequence[_Life]) -> tuple[list[str], list[list[str]]]:
    heads = ["seed", "weights", "germinated", "blended in from", "α = 1 from", "stays from", "removed", "why"]
    stages = (Stage.GERMINATED, Stage.BLENDING, Stage.SHADOWING, Stage.FOSSILIZED, Stage.CULLED)
    rows = []
    for life in lives:
        weights = f"{life.weights:,}" if life.weights else _NONE
        why = f"still {life.last.after}" if life.is_in_progress else life.last.reason
        rows.append([life.name, weights, *(_step(life.step_of(stage)) for stage in stages), why])
    return heads, rows


class _Asked(NamedTuple):
    """A gate at one decision: the step, the growth seed, its stage, and the verdict."""

    step: int
    seed: str
    stage: Stage
    passed: bool
    reason: str


def _gate_rows(history: GrowthHistory) -> Iterator[list[str]]:
    """A row for each gate that a seed passed or did not pass; one row where the same gate refused it several times."""
    asked = [
        _Asked(each.step, f"{each.blueprint} at {each.tap}", each.before, True, each.reason)
        for each in history.events
        if NEXT.get(each.before) is each.after
    ]
    asked += [
        _Asked(each.step, f"{each.blueprint} at {each.tap}", each.stage, False, each.reason)
        for each in history.refusals
    ]
    for (seed, stage, passed), group in groupby(sorted(asked), key=lambda each: (each.seed, each.stage, each.passed)):
        first, *others = group
        last = others[-1] if others else first
        steps = f"{first.step:,} to {last.step:,}" if others else f"{first.step:,}"
        verdict = "yes" if passed else f"no, {len(others) + 1} times" if others else "no"
        yield [steps, seed, f"{stage} → {NEXT[stage]}", verdict, last.reason]


def _twins_table(losses: Mapping[int, Mapping[str, float]]) -> tuple[list[str], list[list[str]]]:
    """The loss of each network, and that of the network that grew over that of its twin."""
    grown, *kinds = dict.fromkeys(kind for each in losses.values() for kind in each)
    rows = []
    for seed, each in losses.items():
        pairs = [(f"{each[kind]:.4g}", f"{each[grown] / each[kind]:.3f}") if kind in each else (_NONE, _NONE)
                 for kind in kinds]  # fmt: skip
        rows.append([str(seed), f"{each[grown]:.4g}", *(cell for pair in pairs for cell in pair)])
    return ["random seed", grown, *(head for kind in kinds for head in (kind, f"{grown} / {kind}"))], rows


def _step(step: int | None) -> str:
    return _NONE if step is None else f"{step:,}"
