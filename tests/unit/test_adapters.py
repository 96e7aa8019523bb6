"""Low-rank adapters in networks, and their budgets."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from metaopt import Nowcast, get_optimizer_model, get_target_model
from metaopt.adapters import AdapterConfig, DeltaBudget, chosen_adapters, insert_adapters
from metaopt.adapters.lora import adapters_of, change_of
from metaopt.core.errors import InvalidConfig, LayoutMismatch
from metaopt.optimizers import evaluation_mode, optimizer_for
from metaopt.probes import get_probe, run_probe
from metaopt.tasks import Batch

CHANGED = ["layers.1", "layers.3"]


def facts(**changes):
    return {"method": "lora", "modules": CHANGED, "rank": 2, "alpha": 4.0, **changes}


def adapted(dtype=torch.float32, **changes):
    torch.manual_seed(0)
    model = get_target_model("MLP", in_features=6, widths=(8, 8), classes=3)
    return insert_adapters(model, facts(**changes)).to(dtype)


def train(model, optimizer, steps=3):
    for step in range(steps):
        optimizer.zero_grad()
        inputs = torch.randn(16, 6, generator=torch.Generator().manual_seed(step)).to(next(model.parameters()).dtype)
        model(inputs).square().mean().backward()
        optimizer.step()


def trainable(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def dense_shares(model):
    """‖ΔW‖ / ‖W‖ from whole matrices, in float64."""
    shares = {}
    for each in adapters_of(model):
        precise = each._replace(down=each.down.double(), up=each.up.double())
        shares[each.module] = (change_of(precise).norm() / each.base.double().norm()).item()
    return shares


def test_adapters_change_no_output_and_are_all_that_is_trained():
    torch.manual_seed(0)
    model = get_target_model("MLP", in_features=6, widths=(8, 8), classes=3)
    inputs = torch.randn(5, 6)
    before, weights = model(inputs), {name: value.clone() for name, value in model.state_dict().items()}
    assert insert_adapters(model, facts())(inputs).equal(before)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert names == [f"{module}.lora_{part}.default.weight" for module in CHANGED for part in "AB"]
    train(model, torch.optim.SGD(trainable(model), lr=0.1))
    assert not model(inputs).equal(before)
    kept = {name.replace("base_layer.", ""): value for name, value in model.state_dict().items() if "lora" not in name}
    assert kept.keys() == weights.keys()
    assert all(value.equal(weights[name]) for name, value in kept.items())


def test_the_change_of_a_matrix_is_what_the_adapter_adds():
    model = adapted()
    train(model, torch.optim.SGD(trainable(model), lr=0.5))
    first = next(adapters_of(model))
    layer, inputs = model.get_submodule(first.module), torch.randn(4, 6)
    merged = nn.functional.linear(inputs, first.base + change_of(first), layer.base_layer.bias)
    torch.testing.assert_close(layer(inputs), merged)
    assert first.scale == 4.0 / 2


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"modules": ["layers.0"]}, InvalidConfig, "'layers.0' of MLP is Flatten; expected a torch.nn.Linear"),
        ({"modules": ["ayers.1"]}, InvalidConfig, "'ayers.1' of MLP is missing"),
        ({"rank": 0}, InvalidConfig, "rank is 0; expected a whole number of 1 or more"),
        ({"alpha": 0.0}, InvalidConfig, "alpha is 0.0; expected a positive number"),
        ({"modules": []}, LayoutMismatch, "expected lora, and names"),
        ({"method": "dora"}, LayoutMismatch, "of the method 'dora'"),
        ({"ranks": 2}, LayoutMismatch, "describes no adapters"),
    ],
)
def test_adapters_that_do_not_fit_are_refused_and_change_nothing(changes, error, message):
    model = get_target_model("MLP", in_features=6, widths=(8, 8), classes=3)
    with pytest.raises(error, match=message):
        insert_adapters(model, facts(**changes))
    assert len(trainable(model)) == 6


def test_a_layer_whose_weights_are_read_without_a_call_has_no_adapter():
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2), "head": nn.Linear(8, 2)})
    assert chosen_adapters(model, AdapterConfig(adapter="lora", rank=2)).modules == ["head"]
    with pytest.raises(InvalidConfig, match=r"expected a torch\.nn\.Linear outside of torch\.nn\.MultiheadAttention"):
        insert_adapters(model, facts(modules=["attention.out_proj"]))


def test_a_network_with_adapters_takes_no_others():
    with pytest.raises(InvalidConfig, match="MLP has adapters"):
        insert_adapters(adapted(), facts(modules=["layers.5"]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_no_share_is_above_its_cap_after_a_step(dtype):
    model = adapted(dtype)
    optimizer = torch.optim.SGD(trainable(model), lr=50.0)
    budget = DeltaBudget(model, cap=0.25, caps={r"\.3$": 0.1})
    budget.attach(optimizer)
    for steps in (1, 1, 3):
        train(model, optimizer, steps)
        shares = dense_shares(model)
        assert budget.shares() == pytest.approx(shares, rel=1e-9)
        for module, cap in (("layers.1", 0.25), ("layers.3", 0.1)):
            assert shares[module] <= cap * (1 + 1e-6)
            assert shares[module] >= cap * (0.97 if dtype is torch.bfloat16 else 1 - 1e-6)


def test_the_weights_of_an_evaluation_are_within_the_budget_and_those_of_the_training_stay():
    model, other = adapted(), adapted()
    for each in (model, other):
        optimizer = optimizer_for(each, "AdamWScheduleFree", 0.3, {})
        DeltaBudget(each, cap=0.25).attach(optimizer)
        for _ in range(8):
            train(each, optimizer, 1)
            if each is model:
                with evaluation_mode(optimizer):
                    assert max(dense_shares(model).values()) <= 0.25 * (1 + 1e-6)
    assert all(ours.equal(theirs) for ours, theirs in zip(trainable(model), trainable(other), strict=True))


def test_a_change_within_its_budget_stays_bit_for_bit():
    plain, limited = adapted(), adapted()
    DeltaBudget(limited, cap=None).attach(limited_optimizer := torch.optim.SGD(trainable(limited), lr=0.01))
    DeltaBudget(limited, cap=0.9).attach(limited_optimizer)
    train(plain, torch.optim.SGD(trainable(plain), lr=0.01))
    train(limited, limited_optimizer)
    assert all(ours.equal(theirs) for ours, theirs in zip(trainable(plain), trainable(limited), strict=True))
    assert max(dense_shares(plain).values()) < 0.9


def test_the_projection_keeps_the_direction_of_the_change():
    model = adapted()
    train(model, torch.optim.SGD(trainable(model), lr=20.0))
    before = [change_of(each) for each in adapters_of(model)]
    DeltaBudget(model, cap=0.01).project()
    for old, each in zip(before, adapters_of(model), strict=True):
        new = change_of(each)
        torch.testing.assert_close(new / new.norm(), old / old.norm())
        assert (new.norm() / each.base.norm()).item() == pytest.approx(0.01, rel=1e-5)


def test_forecasts_of_nowcast_are_projected():
    model = adapted()
    base, slopes = torch.optim.SGD(trainable(model), lr=5.0), get_optimizer_model("Slopes", history=3)
    optimizer = Nowcast(base, model, slopes, every=4, stride=1, horizons=[2], max_overhead=None)
    DeltaBudget(model, cap=0.05).attach(optimizer)
    for _ in range(8):
        train(model, optimizer, 1)
        assert max(dense_shares(model).values()) <= 0.05 * (1 + 1e-6)
    assert optimizer.events


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cap": 0.0}, "the budget cap is 0.0; expected a positive number, such as 0.25"),
        ({"cap": 0.1, "caps": {"layers": -1}}, "the budget layers is -1"),
        ({"cap": 0.1, "caps": {"(": 0.2}}, r"the budget of '\(': no regular expression"),
        ({"cap": 0.1, "caps": {"head": 0.2}}, "'head' is for no adapted matrix; adapted are layers.1, layers.3"),
    ],
)
def test_invalid_budgets_are_refused(options, message):
    with pytest.raises(InvalidConfig, match=message):
        DeltaBudget(adapted(), **options)


def test_a_network_without_adapters_has_no_budget():
    with pytest.raises(InvalidConfig, match="Linear has no adapters"):
        DeltaBudget(nn.Linear(2, 2), cap=0.1)


def test_the_first_expression_that_matches_gives_the_cap():
    assert DeltaBudget(adapted(), None, {r"\.3$": 0.1, "layers": 0.2}).caps == {"layers.1": 0.2, "layers.3": 0.1}


def test_a_matrix_of_zeros_cannot_change():
    model = adapted()
    first = next(adapters_of(model))
    nn.init.zeros_(first.base)
    DeltaBudget(model, cap=0.5).attach(optimizer := torch.optim.SGD(trainable(model), lr=1.0))
    train(model, optimizer)
    assert change_of(first).norm() == 0


def test_probes_see_the_change_of_each_matrix_and_its_budget():
    before = adapted()
    train(before, torch.optim.SGD(trainable(before), lr=0.1))
    after = deepcopy(before)
    train(after, torch.optim.SGD(trainable(after), lr=0.5))
    whole = [{each.module: each.base + change_of(each) for each in adapters_of(model)} for model in (before, after)]
    task, batch = SimpleNamespace(rows_at_once=4), Batch(torch.zeros(1, 6), torch.zeros(1))
    budgets, spectrum = (
        run_probe(get_probe(name), before, after, task, batch) for name in ("delta-budgets", "spectrum")
    )
    assert [row["matrix"] for row in budgets.rows] == [f"layers.{place}.weight" for place in (1, 3, 5)]
    for row, ranks, module in zip(budgets.rows, spectrum.rows, CHANGED, strict=False):
        first, second = (each[module] for each in whole)
        assert row["change"] == pytest.approx(((second - first).norm() / first.norm()).item(), rel=1e-4)
        assert [row["budget_before"], row["budget_after"]] == [
            pytest.approx(dense_shares(model)[module], rel=1e-5) for model in (before, after)
        ]
        assert ranks["stable_rank"] <= ranks["effective_rank"] < 4.1  # two changes of rank 2
    assert (budgets.rows[2]["change"], budgets.rows[2]["budget_after"]) == (0.0, None)
    assert budgets.values["largest_budget_after"] == pytest.approx(max(dense_shares(after).values()), rel=1e-5)
