"""A PostgreSQL server for the tests that need one; they are skipped where it is missing."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from benchmarks.operations import postgres as server


@contextmanager
def postgres(*databases: str) -> Iterator[str]:
    """Run a server with empty databases during the block; yields its URL."""
    pytest.importorskip("psycopg2")
    with ExitStack() as stack:
        try:
            url = stack.enter_context(server.postgres(*databases))
        except server.PostgresMissing as error:
            pytest.skip(str(error))
        yield url
