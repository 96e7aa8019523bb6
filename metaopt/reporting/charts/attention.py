"""What the optimizer attends to."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from ...diagnostics import Attention, Diagnostics
from ...evaluation.results import Comparison
from ...figures import canvas, legend, row_labels, spread, styled
from ...figures.colours import MUTED, heat, in_order
from ...figures.interactive import Interactive, dots, interactive, row_axis
from .base import subject_of

_ROW = 0.34  # [inches]
_PIXELS = 36


@dataclass(frozen=True)
class AttentionChart:
    """Shares of the encoder's attention, layer by layer."""

    comparison: Comparison
    portrait: Diagnostics
    attention: Attention
    name: ClassVar[str] = "attention"
    title: ClassVar[str] = "What the optimizer attends to"

    @property
    def caption(self) -> str:
        """How to read it."""
        return (
            "Left: share of the attention that the encoder's latents give to the weight tokens of each layer, at an "
            "early (light) to a late (dark) step; all layers of a step add up to 100 %. Grey ticks: the share of the "
            f"{self.attention.tokens:,} tokens that are seen, which is what attention without any preference would "
            "give. Right: the same for each latent alone, at the middle step. Attention says where the latents look, "
            "not what they make of it."
        )

    @styled()
    def drawn(self) -> Figure:
        """All latents on the left, each on the right."""
        sitter, judged = subject_of(self.comparison, self.portrait), self.comparison.judged
        subtitle = f"{sitter}. Attention of {judged}'s encoder over the weight tokens"
        height, entries = 0.8 + _ROW * len(self.attention.names), len(self.attention.starts) + 1
        figure, axes = canvas(self.title, subtitle, height, entries, ncols=2, sharey=True, width_ratios=(1.2, 1))
        left, right = axes[0]
        self._draw_shares(left)
        row_labels(left, self.attention.names)
        legend(figure, left, handletextpad=0.3)
        bar = figure.colorbar(self._draw_latents(right), ax=right, ticks=(0, 0.5, 1), pad=0.02, aspect=30)
        bar.outline.set_visible(False)
        bar.set_ticklabels(["0 %", "50 %", "100 %"])
        return figure

    def interactive(self) -> Interactive:
        """The same, with the share of each latent."""
        rows = row_axis(self.attention.names)
        return interactive(
            [*self._traces(), self._heat_trace()],
            150 + _PIXELS * len(self.attention.names),
            (1.2, 1),
            xaxis={"title": {"text": "share of attention [%]"}, "rangemode": "tozero"},
            yaxis=rows,
            xaxis2={"title": {"text": f"latents, at step {self._middle()}"}, "showgrid": False, "tickvals": []},
            yaxis2={**rows, "showticklabels": False, "showgrid": False},
        )

    def _draw_shares(self, axes: Axes) -> None:
        rows = np.arange(len(self.attention.names))
        tick: dict[str, Any] = {"color": MUTED, "markersize": 15, "markeredgewidth": 1.6, "linestyle": "none"}
        axes.plot(100 * self.attention.even, rows, "|", label="share of tokens", **tick)
        for start, share, colour, height in self._states():
            axes.plot(100 * share, rows + height, "o", color=colour, label=f"step {start}")
        axes.set(xlabel="share of attention [%]", xlim=(-2, None))

    def _draw_latents(self, axes: Axes) -> AxesImage:
        colours = LinearSegmentedColormap.from_list("heat", heat())
        image = axes.imshow(self._ordered().T, cmap=colours, vmin=0, vmax=1, aspect="auto")
        axes.set(xlabel=f"latents, at step {self._middle()}", xticks=[])
        axes.grid(visible=False)
        axes.tick_params(axis="y", length=0)
        return image

    def _states(self) -> list[tuple[int, Float[np.ndarray, " names"], str, float]]:
        """For each start: step, shares, colour, height above its row."""
        starts = self.attention.starts
        drawn = in_order(len(starts)), spread(0, len(starts), 0.3)
        return list(zip(starts, self.attention.shares, *drawn, strict=True))

    def _middle(self) -> int:
        return self.attention.starts[len(self.attention.starts) // 2]

    def _ordered(self) -> Float[np.ndarray, "latents names"]:
        """Latents that look at the same layers next to each other."""
        by_latent = self.attention.by_latent
        order = np.lexsort((-by_latent.max(1), by_latent.argmax(1)))
        return by_latent[order]

    def _traces(self) -> list[dict[str, Any]]:
        names, rows = list(self.attention.names), np.arange(len(self.attention.names))
        hover = "%{text}<br>%{x:.1f} % of the tokens<extra></extra>"
        tick = {"symbol": "line-ns-open", "size": 16, "text": names, "hovertemplate": hover}
        traces = [dots(100 * self.attention.even, rows, "share of tokens", MUTED, **tick)]
        for start, share, colour, height in self._states():
            hover = f"%{{text}}<br>step {start}: %{{x:.1f}} % of the attention<extra></extra>"
            options = {"size": 9, "text": names, "hovertemplate": hover}
            traces.append(dots(100 * share, rows + height, f"step {start}", colour, **options))
        return traces

    def _heat_trace(self) -> dict[str, Any]:
        shares = self._ordered().T
        names = np.repeat(np.array(self.attention.names)[:, None], shares.shape[1], 1)
        return {
            "type": "heatmap",
            "z": 100 * shares,
            "text": names,
            "zmin": 0,
            "zmax": 100,
            "colorscale": heat(),
            "colorbar": {"title": {"text": "%"}, "thickness": 12, "outlinewidth": 0},
            "xaxis": "x2",
            "yaxis": "y2",
            "hovertemplate": "%{text}<br>%{z:.1f} % of this latent's attention<extra></extra>",
        }
