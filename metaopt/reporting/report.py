"""Reports of a comparison in text: a short table for the terminal, and all results as `report.md`."""

from statistics import fmean

from ..core.documents import Section, markdown
from ..core.text import aligned
from ..evaluation.baselines import TRAINED_BASELINES
from ..evaluation.results import HOLD, NOWCAST_EMA, Comparison, Novelty
from ..evaluation.summary import Summary, at_best_rates, best_rate
from .findings import describe_result, notes
from .formatting import interval, label, legend, verdict
from .tables import (
    FORECAST,
    after_nowcasts,
    controls,
    losses_at_parts,
    nowcasts,
    overview,
    same_rates,
    steps_to_target,
)

_NOWCASTS = """*Before* and *after*: validation loss before and after a single unguarded prediction from a state of
the base optimizer alone (geometric means). *Squared error*: relative to copying W_t; below 1 the prediction is closer
to the weights that training reached. *Kept* and *guard passes*: in the contender's own training, with the guard."""

_AFTER_NOWCASTS = """Validation loss in the contender's own training some steps after each nowcast, kept or rejected,
and that of the base optimizer alone at the same step and learning rate (geometric means)."""

_SAME_RATE = """All contenders at one learning rate: speed-up to the best loss of the base optimizer alone at that rate,
and final loss. If that rate is not its best one, tuning could give part of the speed-up."""

_AT_PARTS = """Validation loss at the ends of the parts of the budget, each contender at its best learning rate there
(*lr*: that of the whole budget). A decayed schedule is at its best at its end, so each part has its own. *Best
baseline*: the lowest mean loss of the contenders without nowcasts; ratio of losses with the same random seed."""

_CONTROLS = """Each control corrupts the input of the optimizer and evaluates the prediction that follows. *Zero
history*: all snapshots are zero. *Shuffled history*: the snapshots before W_t in reverse order. *Another run's
history*: the path of another random seed, shifted to end in W_t. *Wrong times*: times that make the history ten times
as fast. *Gain kept*: share of the real predictions' gain in log loss; negative if the control raises the loss. A
control must fail, which means that it keeps less than half of the gain. A control that does not fail shows that the
optimizer makes no use of the corrupted input."""


_OF_FORECASTS = f"{FORECAST}: one forecast without a guard; all other columns: whole trainings."


def terminal_table(comparison: Comparison) -> str:
    """The contenders in aligned plain text, one line each, then the verdicts on the controls."""
    summary = Summary(at_best_rates(comparison))
    heads, rows = overview(summary)
    lines = [*aligned([heads, *rows]), f"{legend(comparison.config)} {_OF_FORECASTS}", *_footnotes(summary)]
    if summary.controls:
        verdicts = "; ".join(f"{control.control} {verdict(control)}" for control in summary.controls)
        lines.append(f"Controls that must fail: {verdicts}.")
    return "\n".join(lines) + "\n"


def report_title(comparison: Comparison) -> str:
    """The title of a report."""
    return f"{comparison.candidate} against its baselines"


def report_markdown(comparison: Comparison) -> str:
    """The headline, the setup, notes, all tables, and the limits."""
    found = notes(comparison)
    before = [Section("Notes", ("\n".join(f"- {note}" for note in found),))] if found else []
    introduction = [headline(comparison), describe_setup(comparison)]
    return markdown(report_title(comparison), introduction, [*before, *sections(comparison)])


def sections(comparison: Comparison) -> list[Section]:
    """All tables with their explanations, and the limits."""
    summary = Summary(at_best_rates(comparison))
    footnotes = "\n".join([legend(comparison.config), *_footnotes(summary)])
    found = [Section("Steps to target", (steps_to_target(summary), footnotes))]
    if len(comparison.rates) > 1:
        found.append(Section("At the same learning rate", (same_rates(comparison), _SAME_RATE), level=3))
    found.append(Section("Loss at parts of the budget", (losses_at_parts(comparison), _AT_PARTS)))
    found += [
        Section("Nowcasts", (nowcasts(summary), _NOWCASTS)),
        Section("Loss after nowcasts", (after_nowcasts(comparison), _AFTER_NOWCASTS), level=3),
    ]
    if summary.controls:
        found.append(Section("Controls that must fail", (controls(summary), _CONTROLS)))
    if comparison.novelty is not None:
        found.append(Section("Novelty", (_novelty(comparison.novelty),)))
    return [*found, Section("Limits", (_limits(comparison),))]


def headline(comparison: Comparison) -> str:
    """The result of the candidate in a few sentences."""
    summary = Summary(at_best_rates(comparison))
    early = interval(summary.candidate.early.speed_up)
    alone = label(HOLD, comparison.config)
    return f"{describe_result(summary)} To the best loss of {alone} in half of the budget: speed-up {early} in steps."


def describe_setup(comparison: Comparison) -> str:
    """The case and the contenders."""
    config = comparison.config
    last = config["seed"] + config["seeds"] - 1
    return f"""
{config["target_model"]} on {config["task"]}, {config["base_optimizer"]} at lr {", ".join(comparison.rates)}, batches of
{config["batch_size"]}, {config["steps"]} steps, held-out random seeds {config["seed"]} to {last}. The evaluated
optimizer is `{config["optimizer"]}`. Contenders of one random seed are paired runs: same initial weights, same batches,
same steps of measurement.

- *{label(HOLD, config)}* has no nowcasts (`hold` in files).
- *EMA*, *LAWA* and *RNA* are computed from its weights: exponential moving averages (decay 0.98 and 0.99), the
  mean of the latest snapshots, and their regularised nonlinear acceleration.
- {_weights_of_candidate(comparison)}
- With `baselines: all`, *schedule-free*, *outer Nesterov*, *EMA-Nesterov*, *primal averaging*, *Muon*, *SOAP* and
  *LearnedSOAP* are other training rules; *+ average* is the growing average of their weights. *cosine* and *linear
  decay* are trainings with a learning rate that ends at zero, one for each part of the budget. *without guard* accepts
  every forecast.
- All others replace the weights by a prediction every {config["every"]} steps, from snapshots {config["stride"]} steps
  apart, and keep it only if the loss on held-out examples does not rise. These examples are not those of the
  validation loss.

{_choice_of_rates(comparison)}""".strip()


def _weights_of_candidate(comparison: Comparison) -> str:
    name = comparison.candidate
    if f"{name} + {NOWCAST_EMA}" in comparison.contenders:
        return f"*{name} + EMA* is the EMA of the evaluated optimizer's own weights."
    return f"*{name}* predicts an EMA of the weights and is evaluated at it; *{name} without EMA* is the weights."


def _choice_of_rates(comparison: Comparison) -> str:
    if len(comparison.rates) < 2:
        return ""
    alone = label(HOLD, comparison.config)
    return f"""Each contender is shown at its own best learning rate: the one with the lowest best validation loss
within the budget (mean over the same random seeds). The target is the best loss of {alone} at its best learning rate,
{best_rate(comparison, HOLD)}."""


def _novelty(novelty: Novelty) -> str:
    how = (
        "up to permutation of hidden units"
        if novelty.permuted
        else "without permutations, because the network is not a plain chain of layers"
    )
    return f"""Distance of a prediction to the nearest of {novelty.snapshots:,} snapshots seen in meta-training, {how},
relative to the distance between two trainings at the same step (Zeng et al., arXiv:2506.07998). Minimum
{min(novelty.nearest):.2f}, mean over random seeds {fmean(novelty.nearest):.2f}; for the states before the predictions
{min(novelty.of_states):.2f} and {fmean(novelty.of_states):.2f}. A distance near 0, far below that of the states, means
that predictions copy weights seen in meta-training."""


def _limits(comparison: Comparison) -> str:
    seeds, every = comparison.config["seeds"], comparison.config["evaluate_every"]
    return f"""- Random seeds: {seeds}, of one case. A claim needs five or more, and several cases.
- Only the random seeds are held out, provided that meta-training did not use them. Other learning rates, widths,
  architectures and data sets need cases of their own.
- {_limit_of_rates(comparison)}
- Targets are the best loss of a noisy curve, measured every {every} steps; steps to target are no finer than that.
{_limit_of_baselines(comparison)}- Seconds are wall-clock time on a machine that other processes may have used.
  {_cached(comparison)}"""


def _limit_of_rates(comparison: Comparison) -> str:
    if len(comparison.rates) < 3:
        alone = label(HOLD, comparison.config)
        return (
            f"{alone} ran at {len(comparison.rates)} learning rates; finding its best one takes three. Without it, "
            "tuning could give part of a speed-up."
        )
    return "The best learning rates were chosen on the random seeds and examples of the evaluation, for all contenders."


def _limit_of_baselines(comparison: Comparison) -> str:
    missing = [name for name in TRAINED_BASELINES if name not in comparison.contenders]
    return f"- Not compared here: {', '.join(missing)} (`baselines=all` adds them).\n" if missing else ""


def _cached(comparison: Comparison) -> str:
    cached = sum(curve.cached for curve in comparison.curves)
    return f"{cached} of {len(comparison.curves)} curves are from the cache; their seconds were measured earlier."


def _footnotes(summary: Summary) -> list[str]:
    late = [each for each in summary.contenders if each.early.never or each.full.never]
    if not late:
        return []
    config = summary.comparison.config
    named = [(label(each.contender, config), each) for each in late]
    counts = "; ".join(f"{name}: {each.early.never} early, {each.full.never} full" for name, each in named)
    return [
        f"≥: some of the {len(late[0].full.steps)} random seeds did not reach the target ({counts}). They count as one "
        "measurement after the budget, so the true speed-up is at most the one shown."
    ]
