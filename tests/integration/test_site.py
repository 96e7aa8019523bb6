"""The documentation site builds without a warning, fetches nothing from elsewhere, and knows every public name."""

import re
import zlib
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner
from mkdocs.__main__ import cli as mkdocs

import metaopt

ROOT = Path(__file__).parents[2]
ROOMS = ("evaluation", "nowcast", "optimizers", "targets", "tasks", "tracking", "trajectories")
FETCHED = re.compile(
    r"""<(?:script|img|iframe)[^>]*\ssrc=["']?https?:|<link[^>]*\shref=["']?https?:|url\(["']?https?:"""
)
"""What a browser would get from another place; a link that a reader follows is none of it."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    arguments = ["build", "--strict", "--config-file", ROOT / "mkdocs.yml", "--site-dir", folder]
    result = CliRunner().invoke(mkdocs, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def described(site) -> set[str]:
    """The names that the reference has a place for, from Sphinx's kind of inventory."""
    *_, packed = (site / "objects.inv").read_bytes().split(b"\n", 4)
    return {line.split()[0] for line in zlib.decompress(packed).decode().splitlines()}


@pytest.mark.filterwarnings("ignore")  # of the packages that build it
def test_it_builds_without_warnings_and_fetches_nothing(site):
    pages = list(site.rglob("*.html"))
    assert {"index.html", "tutorial.html", "LOG.html", "builtin.html"} <= {page.name for page in pages}
    styles = list(site.rglob("*.css"))
    fetching = [path.name for path in [*pages, *styles] if FETCHED.search(path.read_text(encoding="utf-8"))]
    assert not fetching


@pytest.mark.filterwarnings("ignore")
def test_the_reference_describes_every_public_name(described):
    public = {
        f"metaopt.{room}.{name}" for room in ROOMS for name in getattr(import_module(f"metaopt.{room}"), "__all__", ())
    }
    assert not public - described
    assert set(metaopt.__all__) <= {name.rpartition(".")[2] for name in described}


@pytest.mark.filterwarnings("ignore")
def test_the_command_line_is_described_with_its_defaults(site):
    page = (site / "reference" / "command_line.html").read_text(encoding="utf-8")
    assert "metaopt train-target" in page
    assert "<code>--snapshot-every</code>" in page
