"""The digest of a configuration: equal for two configurations that give the same result.

Runs state it as a tag, jobs beside their parameters, and origins as a part of what made a file. It covers all
parameters apart from those that say where and how a command runs: folders, device, threads, workers, `resume` and
`overwrite` (`option(..., changes_result=False)`). A YAML or JSON file that a parameter names counts by what it
contains, another path by its last part. So the digest is the same on each machine. Another version of metaopt can have
other parameters, and then other digests.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .config import Config
from .errors import InvalidConfig
from .yaml_values import read_values_file

_FILES = (".json", ".yaml", ".yml")


def config_digest(config: Config | Mapping[str, Any]) -> str:
    """The sha256 of the canonical JSON of a configuration, in hexadecimal digits.

        from metaopt.core.config_digest import config_digest
        from metaopt.recording.config import TrainTargetConfig

        first, second = TrainTargetConfig(epochs=3), TrainTargetConfig(epochs=3, workers=2)
        print(config_digest(first) == config_digest(second))  # True: more workers give the same trajectories

    Args:
        config: a configuration; or JSON values by name, which all count.
    """
    values = _identity(config) if isinstance(config, Config) else dict(config)
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _identity(config: Config) -> dict[str, Any]:
    """The parameters that change the result, as JSON values."""
    values = config.to_mapping()
    fields = dataclasses.fields(config)  # type: ignore[arg-type]
    kept = [field.name for field in fields if field.metadata.get("changes_result", True)]
    return {name: _content(getattr(config, name), values[name]) for name in kept}


def _content(value: Any, plain: Any) -> Any:
    """What a path stands for; other values as they are."""
    if not isinstance(value, Path):
        return plain
    if value.suffix.lower() in _FILES:
        try:
            return {"file": read_values_file(value)}
        except InvalidConfig:  # the command that reads the file raises it
            pass
    return {"name": value.name}
