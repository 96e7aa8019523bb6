"""Workers and jobs through outages: all jobs are done once, with the bytes of undisturbed trainings."""

import pytest

from benchmarks.operations.outages import OUTAGES, run_outage
from benchmarks.operations.postgres import PostgresMissing

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", OUTAGES)
def test_jobs_go_on_after_an_outage_and_nothing_is_lost(name, tmp_path):
    if name.startswith("PostgreSQL"):
        pytest.importorskip("psycopg2")
    try:
        row = run_outage(name, tmp_path, jobs=2, workers=1, limit=300.0)
    except PostgresMissing as error:
        pytest.skip(str(error))
    assert {name: row[name] for name in ("jobs", "done", "done twice", "equal weights")} == {
        "jobs": 2,
        "done": 2,
        "done twice": 0,
        "equal weights": 2,
    }
    assert row["reached"], "the outage must have had an effect on a job"
