"""Attention of the encoder over the layers of the target network."""

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from ...diagnostics import Attention, Diagnostics
from ...evaluation.results import Comparison
from ...figures import canvas, legend, row_labels, spread, styled
from ...figures.colours import HEAT, MUTED, in_order
from .base import Chart, describe_run

_TITLE = "What the optimizer attends to"
_ROW = 0.34  # [inches]


def attention_chart(comparison: Comparison, diagnostics: Diagnostics, attention: Attention) -> Chart:
    """Share of the attention that each layer receives, from all latents and from each latent."""
    caption = (
        "Left: share of the attention of the encoder's latents that the weight tokens of each layer receive, at an "
        "early (light) to a late (dark) step; the layers of one step add up to 100 %. Grey ticks: the layer's share of "
        f"the {attention.tokens:,} tokens, which uniform attention would give. Right: the same for each latent, at the "
        "middle step. Attention shows which tokens the latents read, not how they use them."
    )
    return Chart("attention", _TITLE, caption, partial(_draw, comparison, diagnostics, attention))


@styled()
def _draw(comparison: Comparison, diagnostics: Diagnostics, attention: Attention) -> Figure:
    run, candidate = describe_run(comparison, diagnostics), comparison.candidate
    subtitle = f"{run}. Attention of {candidate}'s encoder over the weight tokens"
    height, entries = 0.8 + _ROW * len(attention.names), len(attention.starts) + 1
    figure, axes = canvas(_TITLE, subtitle, height, entries, ncols=2, sharey=True, width_ratios=(1.2, 1))
    left, right = axes[0]
    _draw_shares(left, attention)
    row_labels(left, attention.names)
    legend(figure, left, handletextpad=0.3)
    bar = figure.colorbar(_draw_latents(right, attention), ax=right, ticks=(0, 0.5, 1), pad=0.02, aspect=30)
    bar.outline.set_visible(False)
    bar.set_ticklabels(["0 %", "50 %", "100 %"])
    return figure


def _draw_shares(axes: Axes, attention: Attention) -> None:
    rows, count = np.arange(len(attention.names)), len(attention.starts)
    tick: dict[str, Any] = {"color": MUTED, "markersize": 15, "markeredgewidth": 1.6, "linestyle": "none"}
    axes.plot(100 * attention.uniform, rows, "|", label="share of tokens", **tick)
    for start, shares, colour, height in zip(
        attention.starts, attention.shares, in_order(count), spread(0, count, 0.3), strict=True
    ):
        axes.plot(100 * shares, rows + height, "o", color=colour, label=f"step {start}")
    axes.set(xlabel="share of attention [%]", xlim=(-2, None))


def _draw_latents(axes: Axes, attention: Attention) -> AxesImage:
    """Draw latents as columns, sorted by the layer that they attend to most."""
    by_latent = attention.by_latent
    order = np.lexsort((-by_latent.max(1), by_latent.argmax(1)))
    colours = LinearSegmentedColormap.from_list("heat", HEAT)
    image = axes.imshow(by_latent[order].T, cmap=colours, vmin=0, vmax=1, aspect="auto")
    middle = attention.starts[len(attention.starts) // 2]
    axes.set(xlabel=f"latents, at step {middle}", xticks=[])
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0)
    return image
