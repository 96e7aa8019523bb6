"""What a comparison of controllers has found: metrics, a table, and a report in Markdown."""

import math
from collections.abc import Sequence
from statistics import fmean

from ..core.documents import markdown, markdown_table
from ..core.paired_test import paired_p_value
from ..core.text import counted
from .comparison import CHAMPION, Played
from .config import EpisodeConfig

_HOW_TO_READ = """\
Each controller has trained the same networks: same initial weights, same batches, random seeds on which nothing was
trained or chosen. *Return*: the sum of the rewards of a training, in units of σ, the typical change of the loss from
one decision to the next; mean and standard error over random seeds. *Gain*: the mean of the first controller's return
minus this one's, paired by random seed, and *p* by a one-sided paired t-test. *Loss*: at the end, over that of the same
training without growth. *Grown*: weights that have grown over those of the host."""


def comparison_metrics(found: Sequence[Played]) -> dict[str, float]:
    """The figures of the first controller as `val_…`, and those of the champion, if it took part, as `champion_…`."""
    named = [("val", found[0]), *((CHAMPION, each) for each in found[1:] if each.name == CHAMPION)]
    figures = [(f"{prefix}_{name}", value) for prefix, each in named for name, value in each.figures.items()]
    return {name: value for name, value in figures if math.isfinite(value)}


def comparison_table(found: Sequence[Played]) -> tuple[list[str], list[list[str]]]:
    """The heads and the rows, one for each controller; the gains are those of the first over each other."""
    first = found[0]
    rows = []
    for each in found:
        gains = first.gains_over(each)
        paired = ["–", "–"] if each is first else [f"{fmean(gains):+.3f}", f"{paired_p_value(gains):.3g}"]
        returned = f"{each.mean_return:+.3f} ± {each.standard_error:.3f}"
        rows.append([each.name, returned, *paired, f"{each.loss_over_twin:.3f}", f"{each.grown:.0%}"])
    return ["controller", "return [σ]", "gain [σ]", "p", "loss", "grown"], rows


def describe_comparison(found: Sequence[Played]) -> str:
    """The returns in one line of Markdown."""
    first, *others = found
    compared = "".join(f", {each.name} {each.mean_return:+.3g}" for each in others)
    return (
        f"return **{first.mean_return:+.3g}** σ{compared}; loss **{first.loss_over_twin:.3g}** times that without "
        f"growth; {counted(len(first.results), 'held-out random seed')}"
    )


def comparison_report(config: EpisodeConfig, found: Sequence[Played]) -> str:
    """The report in Markdown."""
    seeds = [result.random_seed for result in found[0].results]
    setup = (
        f"{config.title}, trainings of {config.steps} steps with {config.base_optimizer} at lr {config.lr:g}, "
        f"{counted(config.decisions, 'decision')} each, reward {config.reward}; random seeds {seeds[0]} to {seeds[-1]}."
    )
    found_table = markdown_table(*comparison_table(found))
    introduction = [f"{describe_comparison(found)}.", setup, found_table, _HOW_TO_READ]
    return markdown("Controllers on equal random seeds", introduction, ())
