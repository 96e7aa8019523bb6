"""Figures of a comparison, in colours that colour-blind readers can tell apart (Okabe & Ito). They need no display."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from .readouts import READ_OUT_OF_NOWCASTS
from .results import CHAMPION, HOLD, Comparison
from .summary import Summary

_COLOURS = ["#000000", "#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0072B2", "#B8A800"]
_JUDGED = "#D55E00"
_CONTROL = "#999999"
_MINOR = "#777777"
_MAIN = (HOLD, "EMA 0.98", "line", CHAMPION, "cosine", "schedule-free")
"""Contenders with a colour of their own, and a curve among the loss curves."""


def figures(comparison: Comparison) -> dict[str, Figure]:
    """All figures of a comparison, by name."""
    return {
        "loss_curves": loss_curves(comparison),
        "steps_to_target": steps_to_target(comparison),
        "nowcasts": nowcasts(comparison),
    }


def loss_curves(comparison: Comparison) -> Figure:
    """Validation loss against steps: the median over random seeds, each of them thin, and where nowcasts were kept."""
    figure, axes = _canvas(7, 4.5)
    for contender, colour in _colours(comparison).items():
        if colour == _MINOR:
            continue
        curves = comparison.curves_of(contender)
        steps, losses = curves[0].steps, np.array([curve.losses for curve in curves])
        judged = contender == comparison.judged
        width, order = (2.4, 4) if judged else (1.6, 3 if contender == HOLD else 2)
        dashes = "--" if contender == HOLD else "-"  # lets one see a contender that went the same way
        for row in losses:
            axes.plot(steps, row, color=colour, linewidth=0.6, alpha=0.3)
        median = np.median(losses, axis=0)
        axes.plot(steps, median, color=colour, linewidth=width, linestyle=dashes, label=contender, zorder=order)
        if judged:
            kept = {event.step for curve in curves for event in curve.events if event.accepted}
            marked = [place for place, step in enumerate(steps) if step in kept]
            axes.plot(np.array(steps)[marked], median[marked], "v", color=colour, markersize=7, label="nowcast kept")
    _log_scale(axes, "y")
    axes.set(xlabel="optimizer steps", ylabel="validation loss")
    _title(figure, comparison, "Validation loss in training", "median and each random seed")
    axes.legend(frameon=False, fontsize=9)
    return figure


def steps_to_target(comparison: Comparison) -> Figure:
    """Steps that each contender needed for the best loss of its hold twin; one dot per random seed."""
    standings, colours = Summary(comparison).standings, _colours(comparison)
    figure, axes = _canvas(7, 1.4 + 0.5 * len(standings))
    budget = comparison.curves[0].steps[-1]
    for row, standing in enumerate(standings):
        arrived = [steps for steps in standing.full.steps if steps is not None]
        colour, mean = colours[standing.contender], standing.full.counted_steps
        axes.plot(arrived, _spread(row, len(arrived)), "o", color=colour, markersize=7, alpha=0.8)
        axes.plot([mean, mean], [row - 0.28, row + 0.28], color=colour, linewidth=2.5)
        axes.plot([budget] * standing.full.never, _spread(row, standing.full.never), ">", color=colour, markersize=7)
        _note(axes, row, f"{'≥' if standing.full.never else ''}{mean:.0f}")
    axes.axvline(budget, color=_CONTROL, linestyle=":", linewidth=1)
    axes.set_yticks(range(len(standings)), [standing.contender for standing in standings])
    axes.set(xlabel="optimizer steps", xlim=(0, budget * 1.06), ylim=(len(standings) - 0.5, -0.5))
    legend = "dots: random seeds (▸ never within the budget); bars and numbers: geometric means"
    _title(figure, comparison, "Steps to the best loss of hold", legend)
    return figure


def nowcasts(comparison: Comparison) -> Figure:
    """Loss right after one unguarded prediction relative to the loss before, for predictors and controls."""
    colours = {**_colours(comparison), **dict.fromkeys(comparison.controls, _CONTROL)}
    names = [name for name in colours if comparison.predictions_of(name)]
    figure, axes = _canvas(7, 1.4 + 0.45 * len(names))
    for row, name in enumerate(names):
        ratios = np.array([p.loss_after / p.loss_before for p in comparison.predictions_of(name)])
        ratios = ratios[np.isfinite(ratios)]
        mean = np.exp(np.log(ratios).mean()) if len(ratios) else np.nan
        colour = colours[name]
        axes.plot(ratios, _spread(row, len(ratios)), "o", color=colour, markersize=4, alpha=0.4, markeredgewidth=0)
        axes.plot([mean, mean], [row - 0.3, row + 0.3], color=colour, linewidth=2.5)
        _note(axes, row, f"×{mean:.2f}" if mean < 10 else f"×{mean:.3g}")
    axes.axvline(1, color="black", linewidth=1)
    _log_scale(axes, "x")
    axes.set_yticks(range(len(names)), [f"control: {n}" if n in comparison.controls else n for n in names])
    axes.set(xlabel="validation loss after / before (left of 1: better)", ylim=(len(names) - 0.5, -0.5))
    _title(figure, comparison, "One prediction from the states of hold", "dots: nowcasts; bars and ×: geometric means")
    return figure


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="both", color="#eeeeee", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _title(figure: Figure, comparison: Comparison, what: str, how: str) -> None:
    config = comparison.config
    seeds = f"{config['seeds']} random seed{'s' if config['seeds'] > 1 else ''}"
    case = f"{config['target_model']} on {config['task']}, {config['base_optimizer']}, {seeds}"
    figure.suptitle(f"{what}: {case}\n{how}", x=0.01, ha="left", fontsize=10)


def _colours(comparison: Comparison) -> dict[str, str]:
    """A colour for each of the main contenders, one for all others."""
    main = [name for name in (*_MAIN, f"{comparison.judged} + {READ_OUT_OF_NOWCASTS}") if name in comparison.contenders]
    colours = {**dict.fromkeys(comparison.contenders, _MINOR), **dict(zip(main, _COLOURS, strict=False))}
    return {**colours, comparison.judged: _JUDGED}


def _note(axes: Axes, row: int, text: str) -> None:
    """A number at the right end of a row."""
    axes.annotate(text, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=9)


def _spread(row: int, count: int) -> Sequence[float]:
    """Heights around a row, so that equal values do not hide each other."""
    return [row + 0.16 * (2 * place / (count - 1) - 1) if count > 1 else row for place in range(count)]


def _log_scale(axes: Axes, which: str) -> None:
    """A logarithmic axis with few and plain numbers on it, whether it spans decades or a few percent."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axes.set(**{f"{which}scale": "log"})
    low, high = axis.get_data_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if high > 3 * low else MaxNLocator(6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
