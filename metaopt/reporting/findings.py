"""Findings of an evaluation as sentences in Markdown: the case, the result, and notes on its reliability."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ..core.text import counted
from ..evaluation.promotion import needs_fewer_steps, relative_steps
from ..evaluation.results import CHAMPION, HOLD, Comparison
from ..evaluation.summary import ContenderSummary, ControlResult, Summary, at_best_rates
from .formatting import fewer_steps, interval, label, number, percent, share_saved

_SEEDS_OF_A_CLAIM = 5
_RATES_OF_A_CLAIM = 3


def describe_task(config: Mapping[str, Any]) -> str:
    """The network and its task ("MLP on digits")."""
    return f"{config['target_model']} on {config['task']}"


def describe_case(config: Mapping[str, Any], rates: Sequence[str]) -> str:
    """Network, task, base optimizer, learning rates, budget and random seeds."""
    first, count = config["seed"], config["seeds"]
    seeds = f"seeds {first} to {first + count - 1}" if count > 1 else f"seed {first}"
    return (
        f"{describe_task(config)}, {config['base_optimizer']} at lr {', '.join(rates)}, {config['steps']} steps, "
        f"held-out random {seeds}"
    )


def describe_evaluation(comparison: Comparison) -> str:
    """The case and its result in one line, for the card of the evaluated optimizer."""
    result = describe_result(Summary(at_best_rates(comparison)))
    return f"{describe_case(comparison.config, comparison.rates)}: {result}"


def describe_result(summary: Summary) -> str:
    """How the candidate, the best other contender and the controls scored, in a few short sentences."""
    candidate, comparison = summary.candidate, summary.comparison
    sentences = [_verdict(summary), *_figures(candidate, comparison)]
    rivals = [rival for rival in _rivals(summary) if math.isfinite(rival.final_loss)]
    best = min(rivals, key=lambda rival: rival.final_loss, default=None)
    compared = f", best of the others {number(best.final_loss)} ({best.contender})" if best else ""
    return f"{' '.join([*sentences, _losses(candidate, comparison)])}{compared}.{_controls(summary.controls)}"


def describe_contender(contender: ContenderSummary, comparison: Comparison) -> str:
    """How a contender scored against the base optimizer alone."""
    if contender.contender == HOLD:
        return f"validation loss at the end **{number(contender.final_loss)}**; all others are compared with it"
    verdict = f"**{contender.contender} {_against_base(contender, comparison)}**."
    return " ".join([verdict, *_figures(contender, comparison), f"{_losses(contender, comparison)}."])


def _verdict(summary: Summary) -> str:
    """What is shown about the candidate: against the fastest baseline, and against the base optimizer alone."""
    candidate = summary.candidate
    against_base = _against_base(candidate, summary.comparison)
    baselines = [rival for rival in _rivals(summary) if rival.contender != CHAMPION]
    fastest = max(baselines, key=lambda rival: rival.full.speed_up.mean, default=None)
    slow = candidate.full.speed_up.mean <= 1
    if slow or fastest is None or fastest.full.speed_up.mean <= 1:
        return f"**{candidate.contender} {against_base}**."
    if needs_fewer_steps(candidate, fastest):
        ratio = relative_steps(candidate, fastest)
        clear = ratio.high is not None and ratio.high < 1  # a two-sided interval is wider than the one-sided test
        than_fastest = f" It needs {share_saved(ratio)} fewer steps than {fastest.contender}." if clear else ""
        return f"**{candidate.contender} {against_base}**.{than_fastest}"
    return f"**{candidate.contender} is not shown to be better than {fastest.contender}**. It {against_base}."


def _against_base(contender: ContenderSummary, comparison: Comparison) -> str:
    full, alone = contender.full, label(HOLD, comparison.config)
    mean, low, high = full.speed_up
    if abs(full.fewer_steps) < 0.5:
        return f"needs as many steps as {alone}"
    if low is not None and high is not None and low <= 1 <= high:
        return f"is not shown to be {'faster' if mean > 1 else 'slower'} than {alone}"
    return f"needs {fewer_steps(full)} steps than {alone}"


def _figures(contender: ContenderSummary, comparison: Comparison) -> list[str]:
    """The speed-up in steps and in seconds, and the random seeds without one, a sentence each."""
    full = contender.full
    sentences = [f"Speed-up {interval(full.speed_up)} in steps, {interval(full.speed_up_in_time)} in seconds."]
    if full.never:
        loss = f"the best loss of {label(HOLD, comparison.config)}"
        sentences.append(f"{full.never} of {counted(len(full.steps), 'random seed')} did not reach {loss}.")
    return sentences


def _losses(contender: ContenderSummary, comparison: Comparison) -> str:
    hold = fmean(curve.losses[-1] for curve in comparison.curves_of(HOLD))
    return f"Final loss {number(contender.final_loss)}, {label(HOLD, comparison.config)} {number(hold)}"


def notes(comparison: Comparison) -> list[str]:
    """What limits a claim: controls that do not fail, baselines that score as well, intervals, seeds and rates."""
    summary = Summary(at_best_rates(comparison))
    controls = [_note_on_control(control) for control in summary.controls if control.fails is not True]
    return [*controls, *_notes_on_baselines(summary), *_notes_on_certainty(summary, len(comparison.rates))]


def _rivals(summary: Summary) -> list[ContenderSummary]:
    """Contenders other than hold, the candidate and its own variant ("perceiver without EMA")."""
    candidate = summary.candidate.contender
    return [
        each
        for each in summary.contenders
        if each.contender not in (HOLD, candidate) and f"{candidate} " not in each.contender
    ]


def _controls(controls: Sequence[ControlResult]) -> str:
    if not controls:
        return ""
    count, undecided = len(controls), sum(control.fails is None for control in controls)
    if undecided:
        return f" Controls: {undecided} of {count} undecided (no gain to lose)."
    passed = [control.control for control in controls if not control.fails]
    failing = count - len(passed)
    failed = f" Of {count} controls that must fail, {failing} fail{'s' if failing == 1 else ''}"
    return f"{failed}; **not: {', '.join(passed)}**." if passed else f"{failed}."


def _note_on_control(control: ControlResult) -> str:
    if control.fails is None:
        return f"The control *{control.control}* is undecided: single predictions do not lower the loss."
    return (
        f"The control *{control.control}* **does not fail**: it keeps {percent(control.kept)} of the gain. The "
        "optimizer makes little use of the input that this control corrupts."
    )


def _notes_on_baselines(summary: Summary) -> list[str]:
    """Rivals that reach the target in as few steps, or end at as low a loss."""
    candidate, rivals = summary.candidate, _rivals(summary)
    faster = [rival for rival in rivals if rival.full.speed_up.mean >= candidate.full.speed_up.mean]
    lower = [rival for rival in rivals if rival.final_loss <= candidate.final_loss]
    found = []
    if faster:
        names = ", ".join(f"*{rival.contender}* ({rival.full.speed_up.mean:.2f})" for rival in faster)
        found.append(f"At least as fast as *{candidate.contender}* ({candidate.full.speed_up.mean:.2f}): {names}.")
    if lower:
        names = ", ".join(f"*{rival.contender}* ({rival.final_loss:.4f})" for rival in lower)
        found.append(f"Final loss no higher than *{candidate.contender}*'s ({candidate.final_loss:.4f}): {names}.")
    return found


def _notes_on_certainty(summary: Summary, rates: int) -> list[str]:
    full = summary.candidate.full
    seeds, low = len(full.steps), full.speed_up.low
    found = []
    if low is not None and low <= 1:
        found.append(f"The 95 % interval of the speed-up is not above 1: {interval(full.speed_up)}.")
    if seeds < _SEEDS_OF_A_CLAIM:
        found.append(f"{seeds} random seed{'s' if seeds > 1 else ''}; a claim needs {_SEEDS_OF_A_CLAIM} or more.")
    if rates < _RATES_OF_A_CLAIM:
        alone = label(HOLD, summary.comparison.config)
        found.append(
            f"{alone} ran at fewer than three learning rates: tuning its rate could give part of the speed-up."
        )
    return found
