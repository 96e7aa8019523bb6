"""Browser pages: `mlflow ui` shows results, phases and how to use the optimizer; `report.html` shows all charts."""

import json
import re
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

pytestmark = pytest.mark.slow

MODEL = "metaopt-digits-MLP"


@pytest.fixture(scope="module")
def runs(address):
    """Run IDs of the main job by name."""
    asked = json.dumps({"experiment_ids": ["1"]}).encode()
    request = Request(f"{address}/api/2.0/mlflow/runs/search", asked, {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as answer:
        return {run["info"]["run_name"]: run["info"]["run_id"] for run in json.load(answer)["runs"]}


@pytest.fixture(scope="module")
def place_of(runs):
    """Returns the path of a run's page."""
    return lambda name: f"/experiments/1/runs/{runs[name]}"


def follow(page, link: str, expected: str):
    """Click a link of a description, wait for a text on the page that opens, and return that page."""
    if page.get_by_text("Show more").count():  # a long description is cut off
        page.get_by_text("Show more").first.click()
    with page.expect_popup() as opened:
        page.locator("a[target=_blank]", has_text=link).first.click()
    opened.value.get_by_text(expected).first.wait_for()
    return opened.value


def test_the_run_list_names_the_main_job_and_its_phases(show, screenshots):
    page = show("run_list", "/experiments/1/runs?workflowType=machine_learning", "main job: digits")
    assert page.get_by_text("metaopt records how networks train").first.is_visible()
    page.locator("[role=row]", has_text="main job").get_by_role("button").first.click()
    for phase in ("phase 1", "phase 2", "phase 3"):
        page.get_by_text(re.compile(phase)).first.wait_for()
    page.screenshot(path=screenshots / "run_list.png")


def test_a_run_describes_its_purpose_and_result_and_links_its_phases(show, place_of):
    page = show("run", place_of("main job: digits"), "All phases")
    result = page.get_by_text(re.compile(r"perceiver (needs|is not shown) .* than"))
    assert result.first.is_visible()
    page = follow(page, "phase 3", "Evaluates perceiver")
    follow(page, f"{MODEL} version 1", "Load it in two lines")


def test_runs_and_the_runs_that_use_them_link_each_other(show, place_of):
    page = show("trajectory", place_of("digits seed 0"), "Used by")
    page = follow(page, "phase 2: train the optimizer", "Trajectories of")
    follow(page, "digits seed 0", "Used by")


def test_the_report_is_rendered_and_figures_are_shown(show, place_of, screenshots):
    evaluation = place_of("phase 3: evaluate on held-out random seeds")
    page = show("report", f"{evaluation}/artifacts/report.md", "Controls that must fail")
    assert page.get_by_role("heading", name="perceiver against its baselines").is_visible()
    page.get_by_text("loss_curves.png").first.click()
    page.wait_for_function("[...document.images].some(image => image.naturalWidth > 500)")
    page.screenshot(path=screenshots / "figure.png")


def test_the_html_report_shows_all_charts_and_requests_nothing(browser, results, screenshots):
    (report,) = results.rglob("report.html")
    context = browser.new_context(viewport={"width": 1200, "height": 1600}, java_script_enabled=False)
    page, requests = context.new_page(), []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    page.screenshot(path=screenshots / "report_html.png", full_page=True)
    assert requests == [report.as_uri()]
    charts = page.locator("figure > svg").all()
    assert len(charts) == len(list(report.parent.glob("*.svg"))) >= 3
    for chart in charts:
        box = chart.bounding_box()
        assert box["width"] > 600
        assert box["height"] > 150
    context.close()


def test_two_contenders_compare_by_the_same_metrics(show, runs, screenshots):
    names = ["Adam alone: MLP on digits", "perceiver: MLP on digits"]
    chosen = quote(json.dumps([runs[name] for name in names]))
    page = show("comparison", f"/compare-runs?runs={chosen}&experiments={quote(json.dumps(['1']))}", names[0])
    page.locator(".js-plotly-plot").first.wait_for()
    page.screenshot(path=screenshots / "comparison.png")
    for name in (*names, "val_loss", "speedup", "final_val_loss", "steps_to_target"):
        assert page.get_by_text(name, exact=True).count(), name


def test_the_models_page_has_a_card(show):
    page = show("model", f"/models/{MODEL}", "Load it in two lines")
    for words in ("Task and data", "MLP on digits", "held-out random seeds", "Limits", "champion"):
        assert page.get_by_text(words).first.is_visible(), words
    assert page.get_by_text(f'metaopt.load_optimizer("models:/{MODEL}/1")').is_visible()
    page = show("version", f"/models/{MODEL}/versions/1", "Load it in two lines")
    links = page.get_by_role(
        "link", name="phase 2: evolve its gains on whole trainings"
    )  # the source, and a link of the card
    links.nth(1).wait_for()
    assert links.count() == 2
