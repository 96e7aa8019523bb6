"""Self-contained HTML pages of text, tables and figures: no script, no network."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from html import escape

_STYLE = """
body { margin: 0; background: white; color: #222; font: 15px/1.55 'DejaVu Sans', Arial, Helvetica, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 28px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 8px 0 12px; }
h2 { font-size: 19px; margin: 44px 0 4px; padding-top: 14px; border-top: 1px solid #e4e4e4; }
h3 { font-size: 16px; margin: 28px 0 4px; }
p, ul { max-width: 860px; margin: 10px 0; }
.headline { font-size: 17px; }
.notes { border-left: 4px solid #E69F00; background: #fdf8ec; padding: 4px 18px; margin: 18px 0; max-width: 838px; }
figure { margin: 26px 0 44px; max-width: 860px; }
figcaption { color: #666; font-size: 13.5px; margin: 6px 8px 0; }
figure svg { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; margin: 12px 0; }
th, td { text-align: left; padding: 5px 18px 5px 0; border-bottom: 1px solid #ececec; white-space: nowrap; }
th { color: #666; font-weight: normal; border-bottom-color: #bbb; }
tr.strong td { font-weight: bold; }
.dot { display: inline-block; width: 9px; height: 9px; border-radius: 5px; margin-right: 8px; }
code { background: #f3f3f3; padding: 1px 4px; border-radius: 3px; font-size: 13px; }
@media print { figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""

_EMPHASIS = ((r"\*\*(.+?)\*\*", "b"), (r"(?<![\w*])\*([^*\n]+?)\*(?![\w*])", "em"), (r"`([^`]+)`", "code"))

_METADATA = "{http://www.w3.org/2000/svg}metadata"


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page of parts that the other functions here return."""
    body = "\n".join(parts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{body}
</main>
</body>
</html>
"""


def heading(text: str, level: int = 2) -> str:
    """A heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def prose(markdown: str, kind: str = "") -> str:
    """Paragraphs and lists.

    Args:
        markdown: Markdown with emphasis, code, and lists whose items begin with a dash.
        kind: CSS class of each paragraph and list.
    """
    blocks = [_block(block, kind) for block in re.split(r"\n\s*\n", markdown.strip())]
    return "\n".join(blocks)


def box(html: str, kind: str) -> str:
    """A block with a CSS class."""
    return f'<div class="{escape(kind)}">{html}</div>'


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], colours: Mapping[str, str], strong: str | None = None
) -> str:
    """A table; the first cell of a row is its name.

    Args:
        colours: colours of names in the figures, shown as dots.
        strong: name of the row in bold.
    """
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "\n".join(_row(cells, colours, cells[0] == strong) for cells in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def inline_figure(name: str, title: str, svg: bytes, caption: str) -> str:
    """An SVG file with a caption.

    Matplotlib gives the same ids (`figure_1`, `patch_2`) to each file, so every id becomes `<name>-<id>`. Namespaces
    are left out: HTML has no need of them, and browsers ignore prefixed elements.

    Args:
        name: unique in the page.
        title: description for screen readers.
        caption: one paragraph of Markdown, as in `prose`.
    """
    root = ElementTree.fromstring(svg)
    for metadata in root.findall(_METADATA):
        root.remove(metadata)
    for element in root.iter():
        element.tag = _local(element.tag)
        attributes = {_local(key): _renamed(_local(key), value, name) for key, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update(attributes)
    root.attrib.update({"role": "img", "aria-label": title})
    drawing = ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)
    return f'<figure id="{escape(name)}">{drawing}<figcaption>{_emphasised(caption)}</figcaption></figure>'


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _renamed(attribute: str, value: str, prefix: str) -> str:
    """An attribute's value, where ids and references to them have a prefix."""
    if attribute == "id":
        return f"{prefix}-{value}"
    if attribute == "href":
        return re.sub(r"^#", f"#{prefix}-", value)
    return re.sub(r"url\(#", f"url(#{prefix}-", value)


def _block(text: str, kind: str) -> str:
    named = f' class="{escape(kind)}"' if kind else ""
    if text.startswith("- "):
        items = re.split(r"(?m)^- ", text)[1:]
        return f"<ul{named}>{''.join(f'<li>{_emphasised(item)}</li>' for item in items)}</ul>"
    return f"<p{named}>{_emphasised(text)}</p>"


def _emphasised(text: str) -> str:
    html = escape(text.strip(), quote=False)
    for pattern, tag in _EMPHASIS:
        html = re.sub(pattern, rf"<{tag}>\1</{tag}>", html)
    return html


def _row(cells: Sequence[str], colours: Mapping[str, str], strong: bool) -> str:
    dot = f'<span class="dot" style="background:{colours[cells[0]]}"></span>' if cells[0] in colours else ""
    inside = "".join(f"<td>{dot if not place else ''}{escape(cell)}</td>" for place, cell in enumerate(cells))
    return f'<tr class="strong">{inside}</tr>' if strong else f"<tr>{inside}</tr>"
