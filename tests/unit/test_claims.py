"""The claims about nested learning: what is stored, the table, and the measurement of forgetting."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from benchmarks._claims import Row, at_most
from benchmarks._stored import Stored
from benchmarks.nested import claims, forgetting, hope_against_gpt, shifted_stream, step_cost
from benchmarks.nested.claims import CLAIMS, Plan
from benchmarks.nested.forgetting import Point, forgotten_at
from benchmarks.nested.hope_against_gpt import NETWORKS, Setting, compare, rows_of
from benchmarks.nested.shifted_stream import loss_of_gpt
from metaopt.tasks import load_task

RECALL = {"pairs": 2, "block_size": 16, "vocab_size": 12, "examples": 40}


def test_a_result_is_stored_by_its_settings_and_what_was_cut_off_is_measured_again(tmp_path):
    path, calls = tmp_path / "finished.jsonl", []

    def measured(settings):
        return Stored(path).of(settings, lambda: calls.append(settings) or [len(calls), 0.5])

    assert [measured({"a": 1, "b": 2}), measured({"a": 2}), measured({"b": 2, "a": 1})] == [
        [1, 0.5],
        [2, 0.5],
        [1, 0.5],
    ]
    path.write_text(path.read_text()[:-9])
    assert [measured({"a": 2}), measured({"a": 1, "b": 2}), measured({"a": 2})] == [[3, 0.5], [1, 0.5], [3, 0.5]]
    assert len(path.read_text().splitlines()) == 2


def test_an_interrupted_comparison_goes_on_and_has_equal_sizes(tmp_path, monkeypatch):
    setting, path = Setting("associative-recall", RECALL, 1, 8, 1, 4, (0.01, 0.001), 2), tmp_path / "finished.jsonl"
    compared = compare(setting, ["no memory", "window"], Stored(path))
    trainings = path.read_text().splitlines()
    assert len(trainings) == 3 * (2 + 2)
    path.write_text("\n".join(trainings[:7]) + "\n")
    seeds, train = [], hope_against_gpt.train
    monkeypatch.setattr(hope_against_gpt, "train", lambda *given: seeds.append(given[4]) or train(*given))
    again = compare(setting, ["no memory", "window"], Stored(path))
    assert seeds == [1, 1000, 1000, 0, 1]
    assert [each.losses.tolist() for each in again] == [each.losses.tolist() for each in compared]
    rows = rows_of(again)
    assert rows[0]["over GPT"] == 1.0
    assert {row["weights"] for row in rows} <= set(range(int(0.9 * rows[0]["weights"]), int(1.1 * rows[0]["weights"])))


def test_what_is_forgotten_is_compared_where_equally_much_is_learned():
    points = [Point(0.0, 0.0), Point(0.2, 0.1), Point(0.4, 0.5), Point(0.3, 0.9)]
    assert forgotten_at(points, 0.1) == pytest.approx(0.05)
    assert forgotten_at(points, 0.35) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="no learning rate learns"):
        forgotten_at(points, 0.5)


def test_forgetting_prints_and_writes_a_row_per_random_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(forgetting, "_HELD_OUT", 650)
    for name, sentence in (("first", "the quick brown fox. "), ("second", "To be, or not to be? ")):
        (tmp_path / name).write_text(sentence * 70, encoding="utf-8")
    texts = ["--first", str(tmp_path / "first"), "--second", str(tmp_path / "second")]
    flags = ["--steps", "2", "--seeds", "1", "--output", str(tmp_path / "rows.json")]
    result = CliRunner().invoke(forgetting.main, [*texts, *flags], catch_exceptions=False)
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))["rows"]
    assert [row["seed"] for row in rows] == [0]
    assert all(row["learned"] > 0 for row in rows)
    assert rows[0]["over all at 0.9"] == pytest.approx(rows[0]["levels at 0.9"] / rows[0]["all at 0.9"])
    assert result.output.count("over ") == 8


def test_the_gpt_of_a_shifted_stream_has_as_many_weights_and_learns_while_it_reads():
    text = torch.arange(4000) % 7
    gpt, hope = shifted_stream.trained_gpt(text, steps=0, seed=0), shifted_stream.trained(text, steps=0, seed=0)
    one, other = (sum(each.numel() for each in model.parameters()) for model in (gpt, hope))
    assert 0.95 <= one / other <= 1.05
    before = copy.deepcopy(gpt.state_dict())
    assert loss_of_gpt(gpt, text, lr=3e-3) < loss_of_gpt(gpt, text, lr=0.0)
    torch.testing.assert_close(gpt.state_dict(), before, rtol=0, atol=0)


def test_claims_are_printed_with_their_spread_and_written_as_json_and_markdown(tmp_path, monkeypatch):
    found = [
        at_most("lower is better", 0.9, [1.0, 2.0]),
        at_most("one seed", 0.9, [0.5]),
        Row("no goal", "", [3.0, 3.0], "printed", "a note"),
    ]
    monkeypatch.setattr(claims, "CLAIMS", {"some": lambda plan, stored: found})
    flags = ["--text-dir", str(tmp_path), "--only", "some", "--output", str(tmp_path / "out")]
    quick = CliRunner().invoke(claims.main, [*flags, "--quick"], catch_exceptions=False)
    assert quick.output.count("not judged") == 6
    assert "too short to judge" in quick.output
    result = CliRunner().invoke(claims.main, flags, catch_exceptions=False)
    assert "| lower is better | ≤ 0.9 | 1.5 ± 0.71 | missed |  |" in result.output
    assert "| one seed | ≤ 0.9 | 0.5 ± 0 | reached |  |" in result.output
    assert "| no goal |  | 3 ± 0 | printed | a note |" in result.output
    assert (tmp_path / "out" / "claims.md").read_text(encoding="utf-8") in result.output
    rows = json.loads((tmp_path / "out" / "claims.json").read_text(encoding="utf-8"))["rows"]
    assert [row["result"] for row in rows] == ["missed", "reached", "printed"]
    assert rows[0]["figures"] == [1.0, 2.0]


def test_every_network_and_task_of_the_claims_exists(tmp_path):
    plan = Plan(tmp_path / "stories", tmp_path / "plays", seeds=3, quick=False)
    assert {*claims._BESIDE_GPT, *claims._WINDOWS, *claims._ABLATIONS} == set(NETWORKS)
    for setting in (plan.recall, plan.passkey):
        assert load_task(setting.task, **setting.options).model_facts["block_size"] == setting.options["block_size"]
    assert len(plan.text.lrs) >= 3
    assert {"rebound", "shifted", "perplexity", "recall", "forgetting"} <= set(CLAIMS)


class SmallPlan(Plan):
    """One step of small networks."""

    def setting(self, task, steps, batch, **options):
        small = {"vocab_size": 300} if task == "text" else {"examples": 40}
        return Setting(task, options | small, 1, 8, 1, 4, (0.01,), self.seeds)


@pytest.fixture
def plan(tmp_path):
    words = (f"word{number} of the {number % 7}th story" for number in range(900))
    (tmp_path / "stories").write_text(" ".join(words), encoding="utf-8")
    return SmallPlan(tmp_path / "stories", tmp_path / "plays", seeds=1, quick=False)


def test_hope_is_compared_on_every_task_and_without_each_part(plan):
    stored = Stored()
    names = ["recall", "perplexity", "passkey", "needle", "recall-window", "ablations-text", "ablations-recall"]
    rows = {name: CLAIMS[name](plan, stored) for name in names}
    assert [len(found) for found in rows.values()] == [4, 3, 3, 3, 2, 5, 5]
    assert all(len(row.figures) == 1 for found in rows.values() for row in found)
    assert rows["recall"][0].result in ("reached", "missed")
    assert rows["perplexity"][0].claim == "perplexity on TinyStories: GPT"
    assert [row.claim.partition(": ")[2] for row in rows["recall-window"]] == ["window", "window without memory"]
    assert all("perplexity over GPT" in row.notes for row in rows["ablations-text"])


def test_the_cost_of_a_step_is_a_claim(plan, monkeypatch):
    small = {"vocab_size": 11, "block_size": 32, "n_layer": 1, "n_head": 1, "n_embd": 8}
    monkeypatch.setitem(step_cost.SHAPES, "small", small)
    time, waits = claims.cost(replace(plan, quick=True), Stored())
    assert time.goal == "≤ 3"
    assert time.figures[0] > 0
    assert (waits.figures, waits.result) == ([0], "reached")


def test_the_largest_vocabulary_of_a_text_is_named(plan):
    plan = Plan(plan.stories, plan.plays, seeds=3, quick=False)
    note = claims._vocabulary(plan)
    assert note.startswith("1,000 pieces; 32,000 do not fit, at most ")
    assert 100 < int(note.split()[-2].replace(",", "")) < 32_000


def test_what_was_not_measured_is_in_the_table_and_results_of_another_benchmark_are_read(tmp_path):
    plan = Plan(tmp_path / "stories", tmp_path / "plays", seeds=3, quick=False)
    (row,) = claims.hope_optimizer(plan, Stored())
    assert (row.measured, row.result) == ("–", "not measured")
    assert "--optimizers FILE" in row.notes
    entries = [
        ("a", "hope", 1.5),
        ("b", "hope", 2.5),
        ("a", "EMA 0.98", 1.0),
        ("b", "EMA 0.98", 1.0),
        ("all", "hope", 9),
    ]
    rows = [{"case": case, "contender": name, "speed-up": value} for case, name, value in entries]
    (tmp_path / "rows.json").write_text(json.dumps({"rows": rows}), encoding="utf-8")
    found = claims.hope_optimizer(replace(plan, optimizers=tmp_path / "rows.json"), Stored())
    assert [(row.claim.rpartition(": ")[2], row.measured) for row in found] == [
        ("hope", "2 ± 0.71"),
        ("EMA 0.98", "1 ± 0"),
    ]
