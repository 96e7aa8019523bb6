"""A diagnosis: the results of probes on one change of a network, and its report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.documents import Section, Table
from ..core.text import printable
from ..probes import Probe, ProbeResult
from ..probes.sections import number_text, sections_of, table_rows
from .report_folder import Inputs, Report, tag_of

_WHY = """To see whether a change did what it was meant to do, and nothing else: which weights moved, and how far; what
became of activations, of attention and of the loss between both networks."""

_HOW_TO_READ = """Each probe below says what its numbers mean. For equal networks every ratio and cosine is 1, and every
other comparison 0. `summary.csv` has the main numbers of all probes, `<probe>.csv` the details of each, such as a row
for each matrix. Figures are files of their own, as SVG and PNG."""


@dataclass(frozen=True)
class Diagnosis:
    """What probes measured on a change.

    Attributes:
        before, after: both sides, in words.
        network: the network and its task.
        examples: what was measured on, in words.
        probes: the probes that ran, by name.
        results: what each measured.
        reasons: why the other probes do not apply, by name.
    """

    before: str
    after: str
    network: str
    examples: str
    probes: Mapping[str, Probe]
    results: Mapping[str, ProbeResult]
    reasons: Mapping[str, str]

    @property
    def facts(self) -> dict[str, Any]:
        """The main results as JSON values."""
        return {
            "before": self.before,
            "after": self.after,
            "network": self.network,
            "examples": self.examples,
            "probes": {name: dict(result.values) for name, result in self.results.items()},
            "not_applicable": dict(self.reasons),
        }

    @property
    def table(self) -> Table:
        """The main numbers of all probes."""
        return ["probe", "value", "number"], [[*found, number_text(value)] for *found, value in self._numbers()]

    def _numbers(self) -> list[list[Any]]:
        return [[probe, name, value] for probe, result in self.results.items() for name, value in result.values.items()]

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """The same for a file."""
        return ["probe", "value", "number"], self._numbers()


def diagnosis_report(diagnosis: Diagnosis, name: str, inputs: Inputs) -> Report:
    """The report of a diagnosis.

    Args:
        name: of the trajectory, for the folder and the title.
        inputs: the files of both sides, and the parameters.
    """
    found = diagnosis.results
    before, after, network = (printable(each) for each in (diagnosis.before, diagnosis.after, diagnosis.network))
    left = "\n".join(f"- `{probe}`: {reason}." for probe, reason in diagnosis.reasons.items())
    return Report(
        tool="diagnose",
        tag=tag_of(name, inputs),
        title=f"Diagnosis of {printable(name)}",
        what=f"{network}, before the change ({before}) and after it ({after}), on {diagnosis.examples}.",
        why=_WHY,
        how_to_read=_HOW_TO_READ,
        summary=diagnosis.facts,
        rows=diagnosis.rows(),
        inputs=inputs,
        sections=[
            *sections_of(diagnosis.probes, found, images=True),
            *([Section("Probes that do not apply", (left,))] if left else []),
        ],
        tables={probe: table_rows(result.rows) for probe, result in found.items()},
        figures={f"{probe}-{each}": draw for probe, result in found.items() for each, draw in result.figures.items()},
    )
