"""The report as one self-contained HTML page with all charts: `report.html`."""

from collections.abc import Sequence

from ..core.documents import Section
from ..evaluation.results import HOLD, Comparison
from ..figures import rendered
from ..figures.page import box, heading, inline_figure, page, prose, table
from .charts import Chart
from .charts.contenders import CONTROL, contender_styles
from .findings import notes
from .formatting import label
from .report import describe_setup, headline, report_title, sections

_HOW_TO_READ = """In all charts, dashed black is the base optimizer alone, orange the *line*, and red the evaluated
optimizer. The numbers of the first three charts are in the tables below, in `contenders.csv` and in
`evaluation.json`."""


def report_html(comparison: Comparison, charts: Sequence[Chart]) -> str:
    """A page with all charts and the text of `report.md`. It has no script and loads nothing.

    Args:
        comparison: results at all learning rates.
        charts: charts of the contenders at their best rates.
    """
    colours = {name: style.colour for name, style in contender_styles(comparison).items()}
    colours |= dict.fromkeys(comparison.controls, CONTROL) | {label(HOLD, comparison.config): colours[HOLD]}
    parts = [
        prose(headline(comparison), "headline"),
        _notes(comparison),
        prose(describe_setup(comparison)),
        prose(_HOW_TO_READ),
    ]
    parts += [heading("Charts"), *map(_figure, charts)]
    for section in sections(comparison):
        parts += _section(section, colours, comparison.candidate)
    return page(report_title(comparison), parts)


def _figure(chart: Chart) -> str:
    return inline_figure(chart.name, chart.title, rendered(chart.figure())["svg"], chart.caption)


def _notes(comparison: Comparison) -> str:
    found = notes(comparison)
    return box(prose("\n".join(f"- {note}" for note in found)), "notes") if found else ""


def _section(section: Section, colours: dict[str, str], candidate: str) -> list[str]:
    blocks = [
        prose(block) if isinstance(block, str) else table(*block, colours, candidate)
        for block in section.blocks
        if block
    ]
    return [heading(section.title, section.level), *blocks]
