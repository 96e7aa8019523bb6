"""Results of finished measurements, so that an interrupted benchmark goes on where it was."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Stored:
    """Results by their settings, in a file of JSON lines.

    A result is used again for equal settings, whatever the code was: use another file after a change of the code.

    Args:
        path: the file, made when the first result is there; None keeps the results in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._results = path, dict[str, Any]()
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").split("\n")[:-1]:  # a line that was cut off has no end
                entry = json.loads(line)
                self._results[_key(entry["settings"])] = entry["result"]
            # What was cut off is removed, or the next result would continue its line.
            whole = path.read_text(encoding="utf-8").rpartition("\n")
            path.write_text(whole[0] + whole[1], encoding="utf-8")

    def of(self, settings: Mapping[str, Any], measure: Callable[[], Any]) -> Any:
        """The result of these settings: the stored one, or that of `measure`, which is plain values."""
        key = _key(settings)
        if key not in self._results:
            line = json.dumps({"settings": dict(settings), "result": measure()})
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
            self._results[key] = json.loads(line)["result"]
        return self._results[key]


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(dict(settings), sort_keys=True)
