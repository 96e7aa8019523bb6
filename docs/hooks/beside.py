"""Adds files from outside of docs/ as pages, and rewrites links to them."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PAGES = {"metaopt/builtin/README.md": "builtin.md", "CHANGELOG.md": "changelog.md"}
"""Path in the site by path in the repository."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    root = Path(config.config_file_path).parent
    for source, place in PAGES.items():
        text = (root / source).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=text.replace("](docs/", "](")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace links to the file in the repository by links to the page."""
    up = "../" * page.file.src_uri.count("/")
    for source, place in PAGES.items():
        markdown = re.sub(rf"\]\((\.\./)+{re.escape(source)}", f"]({up}{place}", markdown)
    return markdown
