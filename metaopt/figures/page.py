"""Pages of text, tables and figures that one can point at, in one file that needs no network."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from .interactive import FONT, Interactive, to_json

_STYLE = f"""
body {{ margin: 0; background: white; color: #222; font: 15px/1.55 {FONT}; }}
main {{ max-width: 1080px; margin: 0 auto; padding: 24px 28px 64px; }}
h1 {{ font-size: 26px; line-height: 1.25; margin: 8px 0 12px; }}
h2 {{ font-size: 19px; margin: 44px 0 4px; padding-top: 14px; border-top: 1px solid #e4e4e4; }}
h3 {{ font-size: 16px; margin: 28px 0 4px; }}
p, ul {{ max-width: 860px; margin: 10px 0; }}
.lead {{ font-size: 17px; }}
.caption {{ color: #666; font-size: 13.5px; margin: 2px 0 10px; }}
.remarks {{ border-left: 4px solid #E69F00; background: #fdf8ec; padding: 4px 18px; margin: 18px 0; max-width: 838px; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; margin: 12px 0; }}
th, td {{ text-align: left; padding: 5px 18px 5px 0; border-bottom: 1px solid #ececec; white-space: nowrap; }}
th {{ color: #666; font-weight: normal; border-bottom-color: #bbb; }}
tr.strong td {{ font-weight: bold; }}
.dot {{ display: inline-block; width: 9px; height: 9px; border-radius: 5px; margin-right: 8px; }}
code {{ background: #f3f3f3; padding: 1px 4px; border-radius: 3px; font-size: 13px; }}
"""

_SETTINGS = "{responsive: true, displayModeBar: false}"  # its buttons would cover legends, and one asks the network

_INLINE = ((r"\*\*(.+?)\*\*", "b"), (r"(?<![\w*])\*([^*\n]+?)\*(?![\w*])", "em"), (r"`([^`]+)`", "code"))


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page of parts that the other functions here made."""
    body = "\n".join(parts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
<script>{get_plotlyjs()}</script>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<noscript><p>The figures of this page need JavaScript; they are also kept as PNG and SVG beside it.</p></noscript>
{body}
</main>
</body>
</html>
"""


def heading(text: str, level: int = 2) -> str:
    """A heading of some level."""
    return f"<h{level}>{escape(text)}</h{level}>"


def prose(markdown: str, kind: str = "") -> str:
    """Paragraphs and lists of the little Markdown that reports use: emphasis, code, lines that begin with a dash."""
    blocks = [_block(block, kind) for block in re.split(r"\n\s*\n", markdown.strip())]
    return "\n".join(blocks)


def box(html: str, kind: str) -> str:
    """Something set apart."""
    return f'<div class="{escape(kind)}">{html}</div>'


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], colours: Mapping[str, str], strong: str | None = None
) -> str:
    """A table whose rows are named by their first cell.

    Args:
        colours: of names that stand for something in the figures.
        strong: the name of the row that matters.
    """
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "\n".join(_row(cells, colours, cells[0] == strong) for cells in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def figure(name: str, interactive: Interactive) -> str:
    """A figure, as wide as the page; its height is its own."""
    place = escape(name)
    drawing = f'(f => Plotly.newPlot("{place}", f.data, f.layout, {_SETTINGS}))({to_json(interactive)})'
    return f'<div id="{place}"></div>\n<script>{drawing}</script>'


def _block(text: str, kind: str) -> str:
    named = f' class="{escape(kind)}"' if kind else ""
    if text.startswith("- "):
        items = re.split(r"(?m)^- ", text)[1:]
        return f"<ul{named}>{''.join(f'<li>{_inline(item)}</li>' for item in items)}</ul>"
    return f"<p{named}>{_inline(text)}</p>"


def _inline(text: str) -> str:
    html = escape(text.strip(), quote=False)
    for pattern, tag in _INLINE:
        html = re.sub(pattern, rf"<{tag}>\1</{tag}>", html)
    return html


def _row(cells: Sequence[str], colours: Mapping[str, str], strong: bool) -> str:
    dot = f'<span class="dot" style="background:{colours[cells[0]]}"></span>' if cells[0] in colours else ""
    inside = "".join(f"<td>{dot if not place else ''}{escape(cell)}</td>" for place, cell in enumerate(cells))
    return f'<tr class="strong">{inside}</tr>' if strong else f"<tr>{inside}</tr>"
