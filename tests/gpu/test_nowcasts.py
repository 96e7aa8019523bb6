"""Forecasts and nowcasts on a GPU."""

import copy

import pytest
import torch
from torch import nn

from metaopt import Layout, Nowcast, get_optimizer_model, load_optimizer
from metaopt.generative import GENERATIVE_OPTIMIZERS
from metaopt.weights.snapshots import Snapshots

pytestmark = pytest.mark.gpu


def network(device, dtype=torch.float32):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 4))
    return layers.to(device, dtype)


def batch(step, device, dtype=torch.float32):
    random = torch.Generator().manual_seed(step)
    inputs = torch.randn(64, 16, generator=random)
    return inputs.to(device, dtype), inputs[:, :4].argmax(1).to(device)


def nowcast(model, device, dtype=torch.float32, **options):
    held_out = batch(10_000, device, dtype)

    def guard():
        model.eval()
        return nn.functional.cross_entropy(model(held_out[0]).float(), held_out[1], reduction="none")

    base = torch.optim.Adam(model.parameters(), lr=1e-3)
    return Nowcast(
        base, model, "builtin", every=8, stride=4, guard=guard, reestimate=lambda: None, **options, max_overhead=None
    )


def train(model, optimizer, steps, device, dtype=torch.float32):
    for step in steps:
        inputs, labels = batch(step, device, dtype)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs).float(), labels).backward()
        optimizer.step()


def losses(optimizer):
    return [event.loss_after for event in optimizer.events]


@pytest.mark.parametrize("name", [*GENERATIVE_OPTIMIZERS.names(), "builtin", "builtin-fast"])
@pytest.mark.parametrize("size", [50, 3000])
def test_a_forecast_on_the_gpu_equals_that_on_the_cpu(name, size, device):
    on_cpu = load_optimizer(name) if name.startswith("builtin") else get_optimizer_model(name)
    with torch.no_grad():
        for parameter in on_cpu.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    layout = Layout.of(nn.Sequential(nn.Linear(size, 40), nn.Linear(40, 7)))
    history = torch.randn(2, 1, layout.size) + 0.01 * torch.randn(2, 9, layout.size).cumsum(1)
    times = (20.0 * torch.arange(9)).expand(2, -1)
    given = (history, times, times[:, -1] + torch.tensor([20.0, 160.0]))
    expected = on_cpu.predict(*given, layout)
    on_gpu = copy.deepcopy(on_cpu).to(device)
    forecast = on_gpu.predict(*(each.to(device) for each in given), layout)
    assert forecast.device.type == device.type
    torch.testing.assert_close(forecast.cpu(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("history_device", [None, "cpu"])
def test_nowcasts_on_the_gpu_equal_those_on_the_cpu(history_device, device):
    model, on_cpu = network(device), network("cpu")
    optimizer = nowcast(model, device, history_device=history_device)
    expected = nowcast(on_cpu, "cpu")
    train(model, optimizer, range(48), device)
    train(on_cpu, expected, range(48), "cpu")
    assert losses(optimizer) == pytest.approx(losses(expected), rel=0.05)
    assert any(event.accepted for event in optimizer.events)
    assert optimizer.predict().device.type == device.type
    with optimizer.averaged_weights():
        assert all(weights.isfinite().all() for weights in model.parameters())


def test_a_history_in_main_memory_in_bfloat16_is_that_of_the_gpu(device):
    histories = []
    for options in ({}, {"history_device": "cpu", "history_dtype": "bfloat16"}):
        model = network(device)
        optimizer = nowcast(model, device, min_cosine=1.0, **options)
        train(model, optimizer, range(30), device)
        histories.append(optimizer._tracked.history.snapshots)
    exact, rounded = (torch.stack([row.float().cpu() for row in each.rows]) for each in histories)
    assert histories[1].rows[0].is_pinned() == (device.type == "cuda")
    torch.testing.assert_close(rounded, exact, rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(rounded[-1], exact[-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("history_device", [None, "cpu"])
def test_steps_snapshots_and_forecasts_do_not_wait_for_the_gpu(history_device, device):
    if device.type != "cuda":
        pytest.skip("only CUDA reports when the host waits")
    model = network(device)
    optimizer = nowcast(model, device, history_device=history_device)
    train(model, optimizer, range(31), device)
    history, layout = optimizer._tracked.history, optimizer.layout
    torch.cuda.set_sync_debug_mode("error")
    try:
        history.add(31, optimizer._tracked.averages.predicted.tensors)
        if history_device is None:
            rows, times = history.snapshots.rows, torch.arange(5.0, device=device)
            optimizer.forecaster.forecast(Snapshots(rows, times.device), times, times[-1:] + 4, layout)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_float16_with_a_grad_scaler(device):
    model = network(device)
    optimizer, scaler = nowcast(model, device), torch.amp.GradScaler(device.type)
    for step in range(24):
        inputs, labels = batch(step, device)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.float16 if device.type == "cuda" else torch.bfloat16):
            loss = nn.functional.cross_entropy(model(inputs), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert optimizer.events
    assert all(weights.isfinite().all() for weights in model.parameters())


def test_bfloat16_weights(device):
    model = network(device, torch.bfloat16)
    optimizer = nowcast(model, device, torch.bfloat16)
    train(model, optimizer, range(24), device, torch.bfloat16)
    assert len(optimizer.events) == 3
    assert {weights.dtype for weights in model.parameters()} == {torch.bfloat16}
    assert optimizer.average.tensors[0].dtype is torch.float32


@pytest.mark.parametrize("options", [{}, {"history_device": "cpu", "history_dtype": "bfloat16"}])
def test_a_resumed_training_continues(options, device):
    whole, first, second = (network(device) for _ in range(3))
    in_one_go, before = nowcast(whole, device, **options), nowcast(first, device, **options)
    train(whole, in_one_go, range(32), device)
    train(first, before, range(18), device)
    second.load_state_dict(first.state_dict())
    after = nowcast(second, device, **options)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    train(second, after, range(18, 32), device)
    assert losses(after) == pytest.approx(losses(in_one_go), rel=1e-4)
    for ours, expected in zip(second.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
