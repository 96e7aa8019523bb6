"""The frozen cases: their files, where their data is, and the digests that show that they are as they were chosen."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sklearn.datasets import load_breast_cancer

from metaopt.core.config import read_config_file
from metaopt.core.errors import InvalidConfig
from metaopt.evaluation.config import EvaluateConfig

FOLDER = Path(__file__).parent
DIGESTS = FOLDER / "digests.json"
"""The sha256 of each file that defines a case. It changes only with a new choice of cases, which is a new line in
docs/LOG.md."""

REGULARISATION = ("digits_mlp", "table_mlp")
"""Cases whose few examples a network memorises: what helps there is regularisation. They are counted apart."""

DATA = {"mnist": ".", "images": "cifar10_images", "shakespeare": "text/tinyshakespeare.txt"}
DATA["stories"] = "text/tinystories.txt"
"""Path of the data in the folder of all data, by the first word of a case's name."""


def names() -> list[str]:
    """The names of all cases."""
    return sorted(path.stem for path in (FOLDER / "cases").glob("*.yaml"))


def digests() -> dict[str, str]:
    """The sha256 of each file that defines a case now."""
    files = [*sorted((FOLDER / "cases").glob("*.yaml")), FOLDER / "networks.py"]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def check_frozen(cases: Sequence[str]) -> None:
    """Check that the cases are those that were frozen.

    Raises:
        InvalidConfig: a file differs, or is new.
    """
    frozen, present = json.loads(DIGESTS.read_text(encoding="utf-8")), digests()
    changed = [file for name in cases for file in (f"{name}.yaml", "networks.py") if frozen.get(file) != present[file]]
    if changed:
        raise InvalidConfig(
            f"{changed[0]} is not as it was frozen in {DIGESTS}. Figures on other cases do not compare with published "
            "ones: restore the file, or choose and freeze all cases anew"
        )


def case(name: str, data: Path, scratch: Path, seeds: int | None = None) -> EvaluateConfig:
    """The configuration of a case.

    Args:
        data: folder that holds the data of all cases.
        scratch: folder for the table that is written from scikit-learn's copy, and for finished runs.
        seeds: the first random seeds of the case only [count].
    """
    values = read_config_file(FOLDER / "cases" / f"{name}.yaml")
    config = EvaluateConfig.from_mapping({**values, "trust_config": True})
    first = name.partition("_")[0]
    if first == "table":
        config = replace(config, data_dir=_table(scratch / "breast_cancer.csv"))
    elif first in DATA:
        config = replace(config, data_dir=data / DATA[first])
    return replace(config, cache_dir=scratch / "runs", seeds=seeds or config.seeds)


def _table(path: Path) -> Path:
    """Write the breast cancer table of scikit-learn as comma-separated values, if it is not there."""
    if not path.exists():
        table = load_breast_cancer()
        path.parent.mkdir(parents=True, exist_ok=True)
        heads = [f"feature_{index}" for index in range(table.data.shape[1])]
        rows = [[*map(repr, map(float, row)), str(label)] for row, label in zip(table.data, table.target, strict=True)]
        path.write_text("\n".join(",".join(line) for line in [[*heads, "label"], *rows]) + "\n", encoding="utf-8")
    return path
