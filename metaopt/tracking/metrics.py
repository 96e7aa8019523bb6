"""Metrics on their way to the store: gathered, and written many at a time."""

import threading
import time
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Metric

BATCH = 900
"""Metrics per write [count]; the store takes at most 1,000."""

PATIENCE = 2.0
"""How long a metric waits at most before the next one takes it along [s]."""


class MetricBuffer:
    """Gathers the metrics of one run: a write per metric would cost more than the training does."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._waiting: list[Metric] = []
        self._written_at = time.monotonic()
        self._lock = threading.Lock()

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Take metrics in, and write all that wait when they are many or have waited long."""
        now = int(time.time() * 1000)
        with self._lock:
            self._waiting += [Metric(name, float(value), now, int(step)) for name, value in values.items()]
            due = len(self._waiting) >= BATCH or time.monotonic() - self._written_at >= PATIENCE
        if due:
            self.flush()

    def flush(self) -> None:
        """Write everything that waits; what could not be written goes on waiting."""
        with self._lock:
            while self._waiting:
                self._client.log_batch(self._run_id, metrics=self._waiting[:BATCH])
                del self._waiting[:BATCH]
            self._written_at = time.monotonic()
