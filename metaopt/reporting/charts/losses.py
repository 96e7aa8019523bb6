"""Loss against steps: twins, and where nowcasts were kept."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...evaluation.results import Comparison
from ...figures import canvas, legend, limits_of, plain_log, styled
from ...figures.colours import MUTED, faded
from ...figures.interactive import Interactive, dots, interactive, lines, log_axis, row_axis
from ...nowcast.policy import NowcastEvent
from .base import case_of
from .contenders import JUDGED, LineStyle, looks

_SEED_ROW = 0.2  # of the strip of nowcasts [inches]
_STRIP_ROW = 26  # the same [pixels]


@dataclass(frozen=True)
class LossCurves:
    """Validation losses of all twins, and the judged optimizer's nowcasts."""

    comparison: Comparison
    name: ClassVar[str] = "loss_curves"
    title: ClassVar[str] = "Validation loss in training"

    @property
    def caption(self) -> str:
        """How to read it."""
        return (
            "Thick: the median over random seeds; thin: each random seed. Contenders of one random seed are twins: "
            f"same initial weights, same batches. Below: the nowcasts of {self.comparison.judged}, one row per random "
            "seed, filled where the guard kept them."
        )

    @cached_property
    def losses(self) -> dict[str, Float[np.ndarray, "seeds points"]]:
        """By contender."""
        return {name: np.array([c.losses for c in self.comparison.curves_of(name)]) for name in looks(self.comparison)}

    @cached_property
    def steps(self) -> list[int]:
        """Where the losses were measured [steps]."""
        return self.comparison.curves[0].steps

    @cached_property
    def nowcasts(self) -> dict[int, tuple[NowcastEvent, ...]]:
        """The judged optimizer's, by random seed."""
        return {curve.seed: curve.events for curve in self.comparison.curves_of(self.comparison.judged)}

    @styled()
    def drawn(self) -> Figure:
        """The prominent contenders."""
        strip = 0.25 + _SEED_ROW * len(self.nowcasts)
        ratios = {"height_ratios": (3.3, strip), "sharex": True}
        prominent = [name for name, look in looks(self.comparison).items() if look.prominent]
        subtitle = f"{case_of(self.comparison)}; thick: median over them"
        figure, axes = canvas(self.title, subtitle, 3.7 + strip, len(prominent), nrows=2, **ratios)
        above, below = axes[:, 0]
        for name, look in looks(self.comparison).items():
            if look.prominent:
                self._draw_curves(above, name, look)
        above.set(ylabel="validation loss", ylim=limits_of(self._shown(), 0.04))
        plain_log(above, "y")
        legend(figure, above)
        self._draw_nowcasts(below)
        return figure

    def interactive(self) -> Interactive:
        """All contenders; those that are not prominent wait in the legend."""
        traces = [t for name, look in looks(self.comparison).items() for t in self._curve_traces(name, look)]
        rows = _STRIP_ROW * len(self.nowcasts)
        height = 460 + rows
        strip = rows / height
        return interactive(
            [*traces, *self._nowcast_traces()],
            height,
            xaxis={"title": {"text": "optimizer steps"}, "anchor": "y2"},
            yaxis={**log_axis(self._shown(), "validation loss"), "domain": [strip + 0.06, 1]},
            yaxis2={
                "domain": [0, strip],
                "anchor": "x",
                **row_axis([f"nowcasts, {seed}" for seed in self.nowcasts]),
                "showline": False,
                "ticks": "",
                "showgrid": False,
            },
        )

    def _shown(self) -> list[float]:
        prominent = [name for name, look in looks(self.comparison).items() if look.prominent]
        return [float(loss) for name in prominent for loss in self.losses[name].flat]

    def _draw_curves(self, axes: Axes, name: str, look: LineStyle) -> None:
        for row in self.losses[name]:
            axes.plot(self.steps, row, color=look.colour, linewidth=0.6, alpha=0.3)
        style: dict[str, Any] = {"linewidth": look.width, "linestyle": look.linestyle, "zorder": look.order}
        axes.plot(self.steps, np.median(self.losses[name], axis=0), color=look.colour, label=name, **style)

    def _draw_nowcasts(self, axes: Axes) -> None:
        for row, events in enumerate(self.nowcasts.values()):
            for accepted, face in ((True, JUDGED), (False, "white")):
                steps = [event.step for event in events if event.accepted == accepted]
                style: dict[str, Any] = {"markersize": 5, "markeredgewidth": 0.9}
                axes.plot(steps, [row] * len(steps), "o", color=JUDGED, markerfacecolor=face, **style)
        axes.set_yticks(range(len(self.nowcasts)), [str(seed) for seed in self.nowcasts], fontsize=8)
        axes.set(xlabel="optimizer steps", ylim=(len(self.nowcasts) - 0.4, -0.6))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        kept = f"nowcasts of {self.comparison.judged} by random seed: ● kept  ○ rejected"
        axes.set_title(kept, fontsize=9, color=MUTED, pad=4)

    def _curve_traces(self, name: str, look: LineStyle) -> list[dict[str, Any]]:
        common = {"legendgroup": name, "visible": True if look.prominent else "legendonly"}
        style = {"dash": look.dash, "width": 1.25 * look.width, **common}
        hover = f"<b>{name}</b><br>step %{{x}}<br>loss %{{y:.4f}} (median)<extra></extra>"
        median = np.median(self.losses[name], axis=0)
        traces = [lines(self.steps, median, name, look.colour, hovertemplate=hover, **style)]
        for curve in self.comparison.curves_of(name) if look.prominent else ():  # each costs room in the page
            hover = f"{name}, random seed {curve.seed}<br>step %{{x}}<br>loss %{{y:.4f}}<extra></extra>"
            thin = {"width": 0.8, "showlegend": False, "hovertemplate": hover, **common}
            traces.append(lines(self.steps, curve.losses, name, faded(look.colour, 0.35), **thin))
        return traces

    def _nowcast_traces(self) -> list[dict[str, Any]]:
        traces = []
        for kept, symbol in ((True, "circle"), (False, "circle-open")):
            found = [
                (event, row, seed)
                for row, (seed, events) in enumerate(self.nowcasts.items())
                for event in events
                if event.accepted == kept
            ]
            steps, rows = [event.step for event, _, _ in found], [row for _, row, _ in found]
            text = [_said_of(event, seed) for event, _, seed in found]
            options = {"symbol": symbol, "yaxis": "y2", "text": text, "hovertemplate": "%{text}<extra></extra>"}
            traces.append(dots(steps, rows, "nowcast kept" if kept else "rejected", JUDGED, **options))
        return traces


def _said_of(event: NowcastEvent, seed: int) -> str:
    """A nowcast in words, for whoever points at it."""
    guard = "" if event.loss_after is None else f"<br>guard {event.loss_before:.4f} → {event.loss_after:.4f}"
    ahead = f", {event.horizon} steps ahead" if event.horizon else ""
    kept = "kept" if event.accepted else "rejected"
    return f"step {event.step}, random seed {seed}: {kept}{ahead}{guard}"
