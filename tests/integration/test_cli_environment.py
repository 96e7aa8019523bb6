"""Commands in unusual environments: closed pipes, full disks, no home, no locale, arguments that are not UTF-8."""

import os
import subprocess
import sys

import pytest

METAOPT = f"{sys.executable} -m metaopt.cli"


@pytest.mark.parametrize(
    ("command", "codes"),
    [
        (f"{METAOPT} list | head -1", {0}),
        (f"{METAOPT} list >&-", {0, 1}),
        (f"{METAOPT} list > /dev/full", {1}),
        (f"env -u HOME -u LANG LC_ALL=C PYTHONIOENCODING=ascii {METAOPT} list tasks csv", {0}),
        (f"{METAOPT} train-target --run-name $'a\\xff'", {1}),
        (f"{METAOPT} train-target --epochs x 2>&-", {1}),
    ],
)
def test_no_environment_leads_to_a_stack_trace(tmp_path, command, codes):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, timeout=120)
    assert done.returncode in codes
    assert b"Traceback" not in done.stdout + done.stderr
    assert b"Exception ignored" not in done.stderr
    assert not list(tmp_path.iterdir())
