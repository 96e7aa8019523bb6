"""The claims about adapters: how figures of random seeds become rows; the trainings run in a benchmark."""

import pytest
import torch

from benchmarks.adapters import budget_cost, claims
from benchmarks.adapters.claims import CAPS, adapters, name_of, rows


def figures(seed, **changes):
    """Figures of a random seed that reach all goals."""
    shares = {name_of(cap): share for cap, share in zip(CAPS, (0.3, 0.5, 0.7, 0.8), strict=True)}
    shares["self-attention"] = 0.4
    found = {
        "old": 0.1,
        "new": 0.5,
        "shuffled": 0.5,
        "new shuffled": 0.5,
        "old after": 0.1,
        "new after": 0.1 + 0.01 * seed,
        "embeddings": {"mean_cosine": 0.95},
        "drifted": 0.3,
        "nowcasts": {"hold": 1.0, "EMA 0.98": 0.9, "builtin": 1.1},
    }
    for name in adapters():
        found[name] = {
            "loss": 0.3 - 0.2 * shares[name],
            "null_drift": 0.3 if name == "self-attention" else 0.1,
            "largest_change": next((cap for cap in CAPS if cap is not None and name == name_of(cap)), 2.0),
            "cross_ratio": 1.02,
            "cross_largest_ratio": 1.05,
            "self_ratio": 1.0,
        }
    return {**found, **changes}


def results(*found):
    return {row.claim: row.result for row in rows(found)}


def test_each_claim_has_a_figure_for_each_random_seed():
    found = rows([figures(0), figures(1)])
    assert {row.result for row in found} == {"reached", "printed", ""}
    measured = {row.claim: row.figures for row in found}
    assert measured["fine-tuning the encoder: share of the gap between new and old words that it closes"] == (
        pytest.approx([1.0, 0.975])
    )
    assert measured["the same over adapters of self-attention, of equal size"] == pytest.approx([2.0, 2.0])
    assert measured["steps of Adam alone over those of builtin, adapters of cross-attention"] == [1.1, 1.1]
    assert not any("hold" in claim for claim in measured)


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"shuffled": 0.4}, "control: loss of the base on new words, over its loss on old words"),
        ({"new shuffled": 0.4}, "control: loss of the base on new words, over its loss on new words"),
        ({"new after": 0.2}, "fine-tuning the encoder"),
        ({"old after": 0.11}, "the same: loss on old words"),
        ({"embeddings": {"mean_cosine": 0.8}}, "the same: mean cosine"),
        ({"drifted": 0.45}, "null-text drift"),
    ],
)
def test_what_is_not_reached_is_missed(changes, missed):
    if missed == "null-text drift":
        changes = {"self-attention": {**figures(0)["self-attention"], "null_drift": 0.1}}
    found = {claim: result for claim, result in results(figures(0, **changes)).items() if result == "missed"}
    assert [claim for claim in found if claim.startswith(missed)]
    assert len(found) == 1


def test_a_budget_costs_a_small_part_of_a_step():
    torch.manual_seed(0)
    found = budget_cost.measured(r"attn2\.to_k", rank=2, steps=4)
    assert found["modules"] == 3
    assert 0 < found["least"] <= found["share"] <= found["most"]


def test_the_rows_of_the_cost_name_the_adapters(monkeypatch):
    found = {"modules": 3, "rank": 2, "step [ms]": 1.0, "share": 0.02, "least": 0.01, "most": 0.04}
    monkeypatch.setattr(budget_cost, "measured", lambda *case: found)
    assert [row.result for row in claims.cost_of_budgets()] == ["reached"] * len(budget_cost.CASES)
