"""The documentation site builds without warnings, loads nothing from other hosts, and describes every public name."""

import re
import zlib
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner
from mkdocs.__main__ import cli as mkdocs

import metaopt

ROOT = Path(__file__).parents[2]
ROOMS = (
    "adapters",
    "diagnostics",
    "generative",
    "growth",
    "nowcast",
    "optimizers",
    "targets",
    "tasks",
    "tracking",
    "trajectories",
    "workflows",
)
LOADED = re.compile(
    r"""<(?:script|img|iframe)[^>]*\ssrc=["']?https?:|<link[^>]*\shref=["']?https?:|url\(["']?https?:"""
)
"""Parts of a page that a browser loads from another host; links for readers are not among them."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    arguments = ["build", "--strict", "--config-file", ROOT / "mkdocs.yml", "--site-dir", folder]
    result = CliRunner().invoke(mkdocs, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def described(site) -> set[str]:
    """The names in the reference, from its inventory in the format of Sphinx."""
    *_, packed = (site / "objects.inv").read_bytes().split(b"\n", 4)
    return {line.split()[0] for line in zlib.decompress(packed).decode().splitlines()}


@pytest.mark.filterwarnings("ignore")  # of the packages that build the site
def test_it_builds_without_warnings_and_loads_nothing_from_other_hosts(site):
    pages = list(site.rglob("*.html"))
    assert {"index.html", "tutorial.html", "LOG.html", "builtin.html"} <= {page.name for page in pages}
    styles = list(site.rglob("*.css"))
    loading = [path.name for path in [*pages, *styles] if LOADED.search(path.read_text(encoding="utf-8"))]
    assert not loading


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
