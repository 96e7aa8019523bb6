"""An inspection as text for the terminal, and as a report folder."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.documents import Section, Table
from ...core.text import aligned, counted, printable
from ...weights.networks import Network
from ..report_folder import InputFile, Inputs, Report, tag_of
from . import tables
from .inspection import Inspection
from .parity import KINDS, Parity

_MOST_ROWS = 40  # of a table in the terminal
_MOST_NETWORKS = 12  # in the terminal

_WHAT = """The names, shapes and dtypes of all tensors of {source}, as the headers of its files list them. No tensor was
read."""

_WHY = """To see what a checkpoint consists of before it is loaded: how many weights each block has, whether the files
of two networks fit each other, and which matrices an adapter would change."""

_HOW_TO_READ = """Modules of the same structure are one row: `blocks.0-29.cross_attn.{k,o,q,v}` is 120 modules, 4 in
each of 30 blocks. *Count* is their number, *weights* that of all their numbers together. `keys.csv` has a row for each
tensor, `shapes.csv` one for each row of these tables and each tensor in it; shapes in these files are JSON."""

_PARITY = """*missing*: the other network has the tensor, and this one lacks it; *extra*: the other way round; *shape*:
both have it, in two shapes. Names are compared under one naming, if a table of aliases knows both."""

_TARGETS = "The matrices that `--include`, `--exclude` and `--layers` choose; `targets.csv` lists each of them."


def terminal_text(inspection: Inspection) -> str:
    """All tables in aligned plain text, shortened."""
    parts = [_plain(tables.networks_table(inspection.networks), _MOST_NETWORKS)]
    groups = inspection.alike()
    for group in groups[:_MOST_NETWORKS]:
        parts.append(f"{_heading(group)}:\n{_plain(tables.blocks_table(group[0]), _MOST_ROWS)}")
    for parities in _alike(inspection.parities)[:_MOST_NETWORKS]:
        table = tables.differences_table(parities[0].differences)
        parts.append("\n".join([*map(describe_parity, parities), *([_plain(table, _MOST_ROWS)] if table[1] else [])]))
    for name, matrices in [*(inspection.targets or {}).items()][:_MOST_NETWORKS]:
        parts.append(f"{_targets_heading(name, len(matrices))}:\n{_plain(tables.targets_table(matrices), _MOST_ROWS)}")
    return "\n\n".join(parts) + "\n"


def describe_parity(parity: Parity) -> str:
    """The result of a comparison, as a sentence."""
    counts = {kind: len(parity.of_kind(kind)) for kind in KINDS}
    found = [
        f"{counted(parity.equal, 'tensor')} with equal names and shapes"
        + (f" ({parity.renamed:,} under another name)" if parity.renamed else ""),
        *([f"{counts['missing']:,} missing"] if counts["missing"] else []),
        *([f"{counts['extra']:,} extra"] if counts["extra"] else []),
        *([f"{counts['shape']:,} of another shape"] if counts["shape"] else []),
        *([f"{parity.other_dtypes:,} of another dtype"] if parity.other_dtypes else []),
    ]
    verdict = "differ" if parity.differences else "have the same tensors"
    return f"{printable(parity.network)} and {printable(parity.other)} {verdict}: {', '.join(found)}"


def notes(inspection: Inspection) -> list[str]:
    """What is unusual, in sentences."""
    found = [f"{each.name}: {note}" for each in inspection.networks for note in each.notes]
    if inspection.pickles:
        more = ", …" if len(inspection.pickles) > 3 else ""
        named = ", ".join(inspection.pickles[:3])
        found.append(f"not read: {named}{more}, which may be pickles; these can run any code when loaded")
    return [printable(each) for each in found]


def report_of(inspection: Inspection, configuration: Mapping[str, Any]) -> Report:
    """The report of an inspection.

    Args:
        configuration: the parameters of the inspection.
    """
    files = [*_files(inspection.source, inspection.networks), *_files(inspection.against or "", inspection.others)]
    inputs, source = Inputs(files, configuration), inspection.source
    more = {}
    if inspection.against is not None:
        more["parity"] = tables.parity_rows(inspection.parities)
    if inspection.targets is not None:
        more["targets"] = tables.targets_rows(inspection.targets)
    return Report(
        tool="inspect",
        tag=tag_of(Path(source).name.removesuffix(".safetensors"), inputs),
        title=f"Inspection of {printable(source)}",
        what=_WHAT.format(source=f"`{printable(source)}`"),
        why=_WHY,
        how_to_read=_HOW_TO_READ,
        summary=tables.facts(inspection),
        rows=tables.summary_rows(inspection.networks),
        inputs=inputs,
        sections=[*_sections(inspection)],
        tables={
            "keys": tables.keys_rows(inspection.networks),
            "shapes": tables.shapes_rows(inspection.networks),
            **more,
        },
    )


def _sections(inspection: Inspection) -> Iterator[Section]:
    remarks = "\n".join(f"- {note}" for note in notes(inspection))
    yield Section("Networks", (tables.networks_table(inspection.networks), remarks))
    for group in inspection.alike():
        yield Section(_heading(group), (_marked(tables.blocks_table(group[0])),))
    for parities in _alike(inspection.parities):
        table = tables.differences_table(parities[0].differences)
        results = "\n".join(f"- {describe_parity(parity)}" for parity in parities)
        yield Section("Comparison", (results, table if table[1] else "", _PARITY))
    for name, matrices in (inspection.targets or {}).items():
        heading = _targets_heading(name, len(matrices))
        yield Section(heading[0].upper() + heading[1:], (tables.targets_table(matrices), _TARGETS))


def _alike(parities: Sequence[Parity]) -> list[list[Parity]]:
    """The comparisons, grouped by equal differences."""
    groups: dict[object, list[Parity]] = {}
    for parity in parities:
        groups.setdefault(parity.differences, []).append(parity)
    return [*groups.values()]


def _heading(group: Sequence[Network]) -> str:
    """The name of a network, or of several that are alike."""
    names = [each.name for each in group]
    if len(group) == 1:
        return printable(names[0])
    listed = " and ".join(names) if len(names) == 2 else f"{names[0]} … {names[-1]} ({len(names):,} networks)"
    return f"{printable(listed)}, with equal names, shapes and dtypes"


def _targets_heading(name: str, count: int) -> str:
    return f"an adapter would change {count:,} {'matrix' if count == 1 else 'matrices'} of {printable(name)}"


def _plain(table: Table, most: int) -> str:
    heads, rows = table
    left = [f"… and {counted(len(rows) - most, 'more row')}, which the report has"] if len(rows) > most else []
    return "\n".join([*aligned([heads, *rows[:most]]), *left])


def _marked(table: Table) -> Table:
    """A table whose first cells keep their indentation in Markdown."""
    heads, rows = table
    return heads, [[row[0].replace("  ", "– ", 1) if row[0].startswith("  ") else row[0], *row[1:]] for row in rows]


def _files(source: str, networks: Iterable[Network]) -> list[InputFile]:
    """The files of some networks, with their paths below the source; the source itself, if that is the file."""
    files = {file.name: file for network in networks for file in network.files}
    paths = {name: source if source.endswith(name) else f"{source.rstrip('/')}/{name}" for name in files}
    return [InputFile.of_header(paths[name], file.size, file.header_sha256) for name, file in files.items()]
