"""A comparison in words and tables: short for a terminal, whole for `report.md`."""

from dataclasses import dataclass
from statistics import fmean

from ..evaluation.baselines import TRAININGS
from ..evaluation.results import HOLD, Comparison, Novelty
from ..evaluation.summary import ContenderSummary, Summary, at_best_rates, best_rate
from .tables import Table, arrivals, controls, nowcasts, overview, same_rates, some_steps_later
from .text import aligned, fewer_steps, interval, markdown_table, remarks, said_of

_NOWCASTS = """Before and after: validation loss of single unguarded predictions from the states of hold (geometric
means). Squared error: relative to copying W_t; below 1 is closer to where the weights went. Kept and guard passes: in
the contender's own, guarded training."""

_AFTERWARDS = """Validation loss in the contender's own training after each nowcast, kept or not, beside hold's at the
same step and learning rate (geometric means)."""

_SAME_RATE = """All contenders at one learning rate; speed-up to the best loss that hold reaches at that same one, and
final loss. A speed-up at a learning rate that is not hold's best could in part be had by tuning."""

_CONTROLS = """Each control spoils what the optimizer is told, and takes what it then generates. *Zero history*: all
snapshots are zero. *Shuffled history*: those before W_t in reverse order. *Another run's history*: the path of another
random seed, moved to end in W_t. *Wrong times*: the past is said to have taken a tenth of its time. Gain kept: share of
the real prediction's gain in log loss; below zero the control does harm, below one half it fails, as it must. One that
does not fail shows that the optimizer makes no use of what was spoilt."""


def terminal_table(comparison: Comparison) -> str:
    """The contenders in aligned plain text, one line each, and what the controls say."""
    summary = Summary(at_best_rates(comparison))
    heads, rows = overview(summary)
    lines = [*aligned([heads, *rows]), *_footnotes(summary)]
    if summary.controls:
        lines.append(f"Controls that must fail: {'; '.join(f'{c.control} {said_of(c)}' for c in summary.controls)}.")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Section:
    """A part of a report: paragraphs of Markdown, and tables."""

    title: str
    blocks: tuple[str | Table, ...]
    level: int = 2


def report_title(comparison: Comparison) -> str:
    """What is judged, and against what."""
    return f"{comparison.judged} against its baselines"


def report_markdown(comparison: Comparison) -> str:
    """What was compared, all figures, the controls, and what the figures cannot say."""
    parts = [f"# {report_title(comparison)}", headline(comparison), what_was_compared(comparison)]
    if found := remarks(comparison):
        parts += ["## Remarks", "\n".join(f"- {remark}" for remark in found)]
    for section in sections(comparison):
        parts.append(f"{'#' * section.level} {section.title}")
        parts += [block if isinstance(block, str) else markdown_table(*block) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def sections(comparison: Comparison) -> list[Section]:
    """All tables, and how to read them."""
    summary = Summary(at_best_rates(comparison))
    found = [Section("Steps to target", (arrivals(summary), "\n".join(_footnotes(summary))))]
    if len(comparison.rates) > 1:
        found.append(Section("At the same learning rate", (same_rates(comparison), _SAME_RATE), level=3))
    found += [
        Section("Nowcasts", (nowcasts(summary), _NOWCASTS)),
        Section("Some steps later", (some_steps_later(comparison), _AFTERWARDS), level=3),
    ]
    if summary.controls:
        found.append(Section("Controls that must fail", (controls(summary), _CONTROLS)))
    if comparison.novelty is not None:
        found.append(Section("Novelty", (_novelty(comparison.novelty),)))
    return [*found, Section("Limits", (_limits(comparison),))]


def headline(comparison: Comparison) -> str:
    """The result in a sentence or two."""
    return _headline(Summary(at_best_rates(comparison)).judged)


def _headline(judged: ContenderSummary) -> str:
    full, early = judged.full, judged.early
    return (
        f"**{judged.contender} reaches the best loss of hold in {fewer_steps(full)} steps** (speed-up "
        f"{interval(full.speed_up)}; the loss at half of the budget in {fewer_steps(early)}, "
        f"{interval(early.speed_up)}). In seconds of training, predictions and guard included: "
        f"{interval(full.speed_up_in_time)}."
        + (f" {full.never} of {len(full.steps)} random seeds never got there." if full.never else "")
    )


def what_was_compared(comparison: Comparison) -> str:
    """The case, and what the contenders are."""
    config = comparison.config
    last = config["seed"] + config["seeds"] - 1
    return f"""
{config["target_model"]} on {config["task"]}, {config["base_optimizer"]} at lr {", ".join(comparison.rates)}, batches of
{config["batch_size"]}, {config["steps"]} steps, held-out random seeds {config["seed"]} to {last}. Contenders of one
random seed are twins: same initial weights, same batches, same points of measurement. *hold* is the base optimizer
alone. *EMA*, *LAWA* and *RNA* are read out of hold's weights: running averages (decay 0.98 and 0.99), the mean of the
last snapshots, and their regularised nonlinear acceleration. {_whose_weights(comparison)}
*cosine* and *schedule-free*, where they ran, are trainings of their own. All others move the weights by a prediction
every {config["every"]} steps, from snapshots {config["stride"]} steps apart, and keep it only if the loss on held-out
examples (not those that judge) does not rise.
The judged optimizer is `{config["optimizer"]}`.{_choice_of_rates(comparison)}""".strip()


def _whose_weights(comparison: Comparison) -> str:
    judged = comparison.judged
    if f"{judged} + EMA" in comparison.contenders:
        return f"*{judged} + EMA* is the running average of the judged optimizer's own weights."
    return (
        f"*{judged}* predicts a running average of the weights, and is judged by it; *{judged} without EMA* are the "
        "weights themselves."
    )


def _choice_of_rates(comparison: Comparison) -> str:
    if len(comparison.rates) < 2:
        return ""
    return f"""

Each contender stands at its own best learning rate: the one with the lowest best validation loss within the budget
(mean over the same random seeds that judge). The target is what hold reaches at its best, which is
{best_rate(comparison, HOLD)}."""


def _novelty(novelty: Novelty) -> str:
    how = (
        "up to permutation of hidden units"
        if novelty.permuted
        else "without regard to permutations, because the network is no plain chain of layers"
    )
    return f"""Distance of a prediction to the nearest of {novelty.snapshots:,} snapshots seen in meta-training, {how},
relative to the distance between two trainings at the same step (Zeng et al., arXiv:2506.07998): least of all
{min(novelty.nearest):.2f}, {fmean(novelty.nearest):.2f} on average over random seeds. The states that were predicted
from have {min(novelty.of_states):.2f} and {fmean(novelty.of_states):.2f}. A figure near 0, far below that of the
states, says that predictions are copies of what was seen."""


def _limits(comparison: Comparison) -> str:
    seeds, every = comparison.config["seeds"], comparison.config["evaluate_every"]
    return f"""- Random seeds: {seeds}, of one case. A claim needs five or more, and several cases.
- Held out is the random seed alone, provided that meta-training did not use these. Other learning rates, widths,
  architectures and data sets are cases of their own.
- {_limit_of_rates(comparison)}
- Targets are the best loss of a noisy curve, measured every {every} steps; steps to target are no finer than that.
{_limit_of_baselines(comparison)}- Seconds are wall-clock time on a machine that may have been busy with other things.
  {_cached(comparison)}"""


def _limit_of_rates(comparison: Comparison) -> str:
    if len(comparison.rates) < 3:
        return (
            f"hold ran at {len(comparison.rates)} learning rates, and three are needed to call one its best. Where "
            "none is, part of a speed-up could be had by tuning."
        )
    return "The best learning rates were chosen on the random seeds and examples that judge, for all contenders alike."


def _limit_of_baselines(comparison: Comparison) -> str:
    missing = [name for name in TRAININGS if name not in comparison.contenders]
    return f"- Not compared here: {', '.join(missing)} (`baselines=all` does).\n" if missing else ""


def _cached(comparison: Comparison) -> str:
    cached = sum(curve.cached for curve in comparison.curves)
    return f"Those of {cached} of {len(comparison.curves)} curves are from the cache: measured when they were trained."


def _footnotes(summary: Summary) -> list[str]:
    late = [s for s in summary.standings if s.early.never or s.full.never]
    if not late:
        return []
    counts = ", ".join(f"{s.contender} {s.early.never} early and {s.full.never} full" for s in late)
    return [
        f"≥: of {len(late[0].full.steps)} random seeds some never got there ({counts}). They count as arrived one "
        "measurement after the budget, so the true speed-up is at most what is shown."
    ]
