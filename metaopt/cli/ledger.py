"""`metaopt ledger`, and what `metaopt lineage` and `metaopt prune` print."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..core.errors import FileFormatError
from ..core.text import aligned, bytes_text, counted
from ..operations.ledger import Found, Ledger
from ..trajectories.ledger_entry import check_entry
from .options import EPILOG
from .output import Result, show

if TYPE_CHECKING:
    from ..operations.lineage_files import DrawnLineage, LineageConfig
    from ..operations.pruning import PruneConfig, Pruned


@click.command("ledger", epilog=EPILOG)
@click.option(
    "--checkpoint-dir",
    type=click.Path(path_type=Path),
    default=Path("checkpoints"),
    show_default=True,
    help="Folder of all checkpoints.",
)
@click.option(
    "--check", is_flag=True, help="Compare every bit with the sha256 in the sidecars, and fail if one differs."
)
def command(checkpoint_dir: Path, check: bool) -> None:
    """List the checkpoints and what wrote them, from the sidecars beside them.

    A sidecar is a JSON file with run, step, sha256, metrics, versions and origin of a checkpoint. Checkpoints without
    one are listed too, with the reason.
    """
    found = Ledger(checkpoint_dir).sync()
    problems = found.problems | (_damages(found, checkpoint_dir) if check else {})
    if check and problems:
        raise FileFormatError(
            f"{counted(len(problems), 'checkpoint')} of {len(found.records) + len(found.problems)} in "
            f"{checkpoint_dir}/ cannot be trusted: {'; '.join(problems.values())}"
        )
    heads = ["checkpoint", "run", "step", "size", "created", "pinned"]
    rows = [
        [each.path, each.run_name, str(each.step), bytes_text(each.size), each.created[:19], "yes" * each.is_pinned]
        for each in found.records
    ]
    facts = {
        "checkpoints": [asdict(each) for each in found.records],
        "problems": found.problems,
        "leftovers": [asdict(each) for each in found.leftovers],
    }
    lines = {} if found.records or problems else {"no checkpoints": f"in {checkpoint_dir}/"}
    lines |= problems
    lines |= {each.path: "is gone, but its shards or its sidecar are there" for each in found.leftovers}
    if check:
        lines["checked"] = f"{counted(len(found.records), 'checkpoint')}, every bit"
    show(Result(facts, lines, table="\n".join(aligned([heads, *rows])) if rows else ""), "ledger")


def _damages(found: Found, folder: Path) -> dict[str, str]:
    """What is wrong with each checkpoint whose bytes are not those of its sidecar."""
    problems: dict[str, str] = {}
    for each in found.records:
        try:
            check_entry(folder / each.path)
        except FileFormatError as error:
            problems[each.path] = str(error)
    return problems


def lineage_result(drawn: "DrawnLineage", config: "LineageConfig") -> Result:
    """The tree, the missing links and the drawing."""
    problems = drawn.lineage.problems()
    lines = {f"missing link {number}": each for number, each in enumerate(problems, 1)}
    lines["drawing"] = " and ".join(map(str, drawn.drawings))
    facts = {**drawn.lineage.to_mapping(), "drawings": drawn.drawings}
    return Result(facts, lines, table=drawn.lineage.tree())


def pruned_result(pruned: "Pruned", config: "PruneConfig") -> Result:
    """The plan with a reason for each checkpoint, and what was done."""
    rows = [
        ["keep" if each.keep else "delete", each.path, bytes_text(each.size), each.reason] for each in pruned.decisions
    ]
    going = [each for each in pruned.decisions if not each.keep]
    size = bytes_text(sum(each.size for each in going))
    lines: dict[str, str] = {}
    if not rows:
        lines["no checkpoints"] = f"in {config.checkpoint_dir}/"
    elif config.apply:
        lines["deleted"] = f"{counted(len(pruned.deleted), 'checkpoint')}, {bytes_text(pruned.freed)}"
        if len(pruned.deleted) < len(going):
            staying = counted(len(going) - len(pruned.deleted), "checkpoint")
            lines["not deleted"] = f"{staying}: in use or pinned since the plan was made"
    else:
        lines["plan"] = f"{counted(len(going), 'checkpoint')} of {len(rows)} would be deleted, {size}; nothing is yet"
    if pruned.limit_problem:
        lines["limit"] = pruned.limit_problem
    facts = {
        "decisions": [asdict(each) for each in pruned.decisions],
        "deleted": list(pruned.deleted),
        "freed": pruned.freed,
        "limit_problem": pruned.limit_problem or None,
    }
    return Result(facts, lines, table="\n".join(aligned([["", "checkpoint", "size", "reason"], *rows])) if rows else "")
