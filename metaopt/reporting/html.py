"""The report as a page on which one can point at everything: `report.html`."""

from collections.abc import Sequence

from ..evaluation.results import Comparison
from ..figures.page import box, figure, heading, page, prose, table
from .charts import Chart
from .charts.contenders import CONTROL, looks
from .report import Section, headline, report_title, sections, what_was_compared
from .text import remarks

_HOW_TO_READ = """Point at anything to see its numbers; click on a name in a legend to hide or show it, drag to zoom in,
double-click to go back. In all figures, dashed black is *hold*, orange the *line*, and red the judged optimizer."""


def report_html(comparison: Comparison, charts: Sequence[Chart]) -> str:
    """The charts, then all that `report.md` says; one file that loads nothing.

    Args:
        comparison: with all learning rates.
        charts: of the contenders at their best ones.
    """
    colours = {name: look.colour for name, look in looks(comparison).items()}
    colours |= dict.fromkeys(comparison.controls, CONTROL)
    parts = [
        prose(headline(comparison), "lead"),
        _remarks(comparison),
        prose(what_was_compared(comparison)),
        prose(_HOW_TO_READ),
    ]
    for chart in charts:
        parts += [heading(chart.title), prose(chart.caption, "caption"), figure(chart.name, chart.interactive())]
    for section in sections(comparison):
        parts += _section(section, colours, comparison.judged)
    return page(report_title(comparison), parts)


def _remarks(comparison: Comparison) -> str:
    found = remarks(comparison)
    return box(prose("\n".join(f"- {remark}" for remark in found)), "remarks") if found else ""


def _section(section: Section, colours: dict[str, str], judged: str) -> list[str]:
    blocks = [
        prose(block) if isinstance(block, str) else table(*block, colours, judged) for block in section.blocks if block
    ]
    return [heading(section.title, section.level), *blocks]
