"""Buffers metrics and writes them in batches."""

import threading
import time
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Metric

BATCH_SIZE = 900
"""Metrics per write [count]; MLflow accepts at most 1,000."""

MAX_DELAY = 2.0
"""Time after which the next metric triggers a write [s]."""


class MetricBuffer:
    """Buffers the metrics of one run: one write per metric would take longer than the training."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._buffer: list[Metric] = []
        self._last_write = time.monotonic()
        self._lock = threading.Lock()

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Add metrics; write all if the batch is full or the last write was more than `MAX_DELAY` ago."""
        now = int(time.time() * 1000)
        with self._lock:
            self._buffer += [Metric(name, float(value), now, int(step)) for name, value in values.items()]
            is_due = len(self._buffer) >= BATCH_SIZE or time.monotonic() - self._last_write >= MAX_DELAY
        if is_due:
            self.flush()

    def flush(self) -> None:
        """Write all buffered metrics; those of a failed write stay in the buffer."""
        with self._lock:
            while self._buffer:
                self._client.log_batch(self._run_id, metrics=self._buffer[:BATCH_SIZE])
                del self._buffer[:BATCH_SIZE]
            self._last_write = time.monotonic()
