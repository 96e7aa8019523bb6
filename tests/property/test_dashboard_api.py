"""The JSON API of the dashboard against its own description: random requests get answers that it names, never a 5xx."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from metaopt.operations.dashboard import Dashboard, DashboardConfig
from metaopt.operations.dashboard.access import VARIABLE
from metaopt.operations.queue import JobQueue

from ..dashboards import TOKEN, job_in_each_state

HEADERS = {"Host": "127.0.0.1", "Authorization": f"Bearer {TOKEN}"}
OPERATIONS = {
    *(("GET", f"/api/{path}") for path in ("health", "queue", "workers", "disk", "retention", "lineage")),
    *(("GET", f"/api/{path}") for path in ("queue/{id}", "queue/{id}/log", "losses/{id}")),
    *(("POST", f"/api/queue/{{id}}/{action}") for action in ("pause", "resume", "stop", "skip", "retry", "move")),
}
few = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=[*HealthCheck],
)


@pytest.fixture(scope="module")
def operations(tmp_path_factory):
    """The described operations of a dashboard of a queue with a job in each state, by method and path."""
    path = tmp_path_factory.mktemp("api") / "queue.db"
    with JobQueue(str(path)) as queue:
        job_in_each_state(queue)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, TOKEN)
        patch.chdir(path.parent)
        with Dashboard(DashboardConfig(queue=str(path))) as dashboard:
            described = schemathesis.openapi.from_asgi("/api/openapi.json", dashboard.app, headers=HEADERS)
            found = (result.ok() for result in described.get_all_operations())
            yield {(each.method.upper(), each.path): each for each in found}


def test_every_operation_is_tested(operations):
    assert operations.keys() == OPERATIONS | {("GET", "/api/events")}  # which has no end


@pytest.mark.parametrize(("method", "path"), sorted(OPERATIONS))
def test_answers_are_those_of_the_description(operations, method, path):
    @few
    @given(operations[method, path].as_strategy())
    def answers(case):
        case.call_and_validate(headers=HEADERS)

    answers()


@pytest.mark.parametrize(("method", "path"), sorted(each for each in OPERATIONS if each[0] == "POST"))
def test_no_random_request_passes_without_the_token(operations, method, path):
    @few
    @given(operations[method, path].as_strategy())
    def is_refused(case):
        assert case.call(headers={"Host": "127.0.0.1", "Authorization": "Bearer x"}).status_code == 401

    is_refused()
