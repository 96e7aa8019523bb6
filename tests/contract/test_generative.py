"""The contract of generative optimizers: those of metaopt and of plug-ins."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from metaopt.core.errors import LayoutMismatch
from metaopt.generative import GENERATIVE_OPTIMIZERS, get_optimizer_model
from metaopt.generative.files import load_optimizer_file, save_optimizer
from metaopt.weights.layout import Layout, WeightTensor
from metaopt.weights.snapshots import Snapshots

SHAPES = {
    "a scalar": [()],
    "one weight": [(1,)],
    "tensors smaller than a token": [(3,), (), (2, 2), (1,)],
    "a convolution": [(4, 3, 3, 3), (4,), (10, 36), (10,)],
    "many tensors": [(2, 5)] * 40,
}
SNAPSHOTS = 7


class CopiesToTheHost(TorchDispatchMode):
    """Counts operations that bring values of another device to the host."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        devices = [each.device.type for each in (*args, result) if isinstance(each, torch.Tensor)]
        self.count += len(devices) > 1 and devices[-1] == "cpu" != devices[0]
        return result


every = pytest.mark.parametrize("name", GENERATIVE_OPTIMIZERS.names())


def layout_of(shapes):
    return Layout(tuple(WeightTensor(f"w{i}", shape, "float32") for i, shape in enumerate(shapes)))


LAYOUT = layout_of(SHAPES["a convolution"])


def build(name):
    """An optimizer whose parameters, if it has any, differ from their initial values."""
    optimizer = get_optimizer_model(name)
    with torch.no_grad():
        for parameter in optimizer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return optimizer.eval()


def inputs(layout=LAYOUT, batch=3, snapshots=SNAPSHOTS):
    """A history of changing weights, its times, and a later time."""
    random = torch.Generator().manual_seed(snapshots)
    steps = torch.randn(batch, snapshots, layout.size, generator=random)
    times = 10.0 * torch.arange(snapshots) + 100 * torch.arange(batch)[:, None]
    return steps.cumsum(1), times, times[:, -1] + 15


@every
def test_equal_inputs_give_equal_predictions(name):
    optimizer, given = build(name), inputs()
    assert torch.equal(optimizer.predict(*given, LAYOUT), optimizer.predict(*given, LAYOUT))


@every
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("snapshots", [1, 2, SNAPSHOTS])
def test_any_layout_and_any_number_of_snapshots(name, shapes, snapshots):
    layout = layout_of(shapes)
    predicted = build(name).predict(*inputs(layout, snapshots=snapshots), layout)
    assert predicted.shape == (3, layout.size)
    assert predicted.dtype == torch.float32
    assert predicted.isfinite().all()


@every
def test_snapshots_older_than_its_history_change_nothing(name):
    optimizer = build(name)
    history, times, t_end = inputs(snapshots=optimizer.history + 3)
    used = optimizer.predict(history[:, -optimizer.history :], times[:, -optimizer.history :], t_end, LAYOUT)
    assert torch.equal(optimizer.predict(history, times, t_end, LAYOUT), used)


@every
@pytest.mark.parametrize("present", [1, 2, 4])
def test_missing_snapshots_give_the_prediction_of_a_shorter_history(name, present):
    optimizer, (history, times, t_end) = build(name), inputs()
    history, times = history[:, -present:], times[:, -present:]
    missing = 5 - present
    filled = torch.cat([history[:, -1:].expand(-1, missing, -1), history], 1)
    filled_times = torch.cat([times[:, -1:].expand(-1, missing), times], 1)
    shorter = optimizer.predict(history, times, t_end, LAYOUT)
    torch.testing.assert_close(optimizer.predict(filled, filled_times, t_end, LAYOUT), shorter)


@every
def test_permuting_the_batch_permutes_the_predictions(name):
    optimizer, given, order = build(name), inputs(), torch.tensor([2, 0, 1])
    permuted = optimizer.predict(*(each[order] for each in given), LAYOUT)
    torch.testing.assert_close(permuted, optimizer.predict(*given, LAYOUT)[order])


@every
def test_a_batch_gives_the_predictions_of_its_rows(name):
    optimizer, given = build(name), inputs()
    alone = [optimizer.predict(*(each[row : row + 1] for each in given), LAYOUT) for row in range(3)]
    torch.testing.assert_close(torch.cat(alone), optimizer.predict(*given, LAYOUT))


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_history_of_any_precision_gives_a_forecast_of_that_precision(name, dtype):
    optimizer, (history, times, t_end) = build(name), inputs()
    forecast = optimizer.predict(history.to(dtype), times, t_end, LAYOUT)
    assert forecast.dtype == dtype
    tolerance = 2 * torch.finfo(dtype).eps ** 0.5 if dtype.itemsize < 4 else 1e-4
    expected = optimizer.predict(history.to(dtype).float(), times, t_end, LAYOUT).to(dtype)
    torch.testing.assert_close(forecast, expected, rtol=tolerance, atol=tolerance)


@every
def test_a_batch_without_histories_gives_no_forecasts(name):
    history, times, t_end = inputs()
    assert build(name).predict(history[:0], times[:0], t_end[:0], LAYOUT).shape == (0, LAYOUT.size)


@every
def test_generate_gives_the_values_of_predict(name):
    optimizer, given = build(name), inputs()
    torch.testing.assert_close(optimizer.generate(*given, LAYOUT), optimizer.predict(*given, LAYOUT))


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_several_times_give_the_predictions_of_each(name, dtype):
    optimizer, (history, times, t_end) = build(name), inputs()
    ends = t_end + torch.tensor([[0.0], [5.0], [40.0]])
    together = optimizer.predict_horizons(history.to(dtype), times, ends, LAYOUT)
    alone = [optimizer.predict(history.to(dtype), times, each, LAYOUT) for each in ends]
    torch.testing.assert_close(together, torch.stack(alone))


@every
@pytest.mark.parametrize("shape", [(0, 3), (2, 1)])
def test_times_that_do_not_fit_are_refused(name, shape):
    history, times, _ = inputs()
    with pytest.raises(LayoutMismatch):
        build(name).predict_horizons(history, times, torch.full(shape, 500.0), LAYOUT)


@every
def test_calling_the_module_is_not_implemented(name):
    with pytest.raises(NotImplementedError):
        build(name)(*inputs(), LAYOUT)


@pytest.mark.parametrize("name", ["Hold", "HopeOptimizer", "Line", "PerceiverOptimizer", "Slopes"])
@pytest.mark.parametrize("snapshots", [1, SNAPSHOTS])
def test_a_horizon_of_zero_gives_the_present_weights(name, snapshots):
    history, times, _ = inputs(snapshots=snapshots)
    assert torch.equal(build(name).predict(history, times, times[:, -1], LAYOUT), history[:, -1])


@every
@pytest.mark.parametrize("method", ["generate", "predict"])
def test_shapes_that_disagree_are_errors(name, method):
    optimizer, (history, times, t_end) = build(name), inputs()
    for given, message in [
        ((history[0], times, t_end), r"history has shape \(7, 482\); expected \[batch, snapshots ≥ 1, weights\]"),
        ((history[:, :0], times[:, :0], t_end), "snapshots ≥ 1"),
        ((history, times[:, 1:], t_end), r"times have shapes \(3, 6\) and \(3,\); .* needs \(3, 7\) and \(3,\)"),
        ((history, times, t_end[:1]), r"needs \(3, 7\) and \(3,\)"),
        ((history[..., 1:], times, t_end), r"got 481 weights; the layout has 482: .* \(w0\[4, 3, 3, 3\]"),
    ]:
        with pytest.raises(LayoutMismatch, match=message):
            getattr(optimizer, method)(*given, LAYOUT)


@every
def test_a_file_restores_an_equal_optimizer_and_keeps_the_random_state(name, tmp_path):
    optimizer, path = build(name), tmp_path / "optimizer.safetensors"
    before = torch.get_rng_state()
    save_optimizer(optimizer, path, {"note": "é"})
    loaded = load_optimizer_file(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert type(loaded) is type(optimizer)
    assert loaded.config == optimizer.config
    assert not loaded.training
    assert torch.equal(loaded.predict(*inputs(), LAYOUT), optimizer.predict(*inputs(), LAYOUT))


@every
def test_generate_has_gradients_and_predict_has_none(name):
    optimizer, (history, times, t_end) = build(name), inputs()
    history.requires_grad_()
    assert not optimizer.predict(history, times, t_end, LAYOUT).requires_grad
    optimizer.generate(history, times, t_end, LAYOUT).square().mean().backward()
    assert history.grad.isfinite().all()
    assert history.grad.any()
    for label, parameter in optimizer.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.isfinite().all(), label
        assert parameter.grad.any(), label


@every
def test_inputs_are_neither_changed_nor_returned(name):
    optimizer, given = build(name), inputs()
    copies = [each.clone() for each in given]
    optimizer.predict(*given, LAYOUT).fill_(7)
    assert all(map(torch.equal, given, copies))


@every
def test_a_configuration_round_trips_through_plain_values(name):
    config = get_optimizer_model(name).config
    assert type(config).from_mapping(config.to_mapping()) == config


@every
@pytest.mark.parametrize("slice_tokens", [4, 4096])
def test_a_forecast_on_another_device_neither_mixes_devices_nor_waits_for_it(name, slice_tokens, fake_cuda):
    """Mixed devices and values that the host asks for are errors of fake tensors; copies to the host are counted."""
    options = {"slice_tokens": slice_tokens} if name == "PerceiverOptimizer" else {}
    with torch.device(fake_cuda):
        optimizer = get_optimizer_model(name, **options)
    history, times, t_end = (each.to(fake_cuda) for each in inputs())
    with CopiesToTheHost() as copies:
        predicted = optimizer.predict(history, times, t_end, LAYOUT)
        forecast = optimizer.forecast(Snapshots.of(history[0]), times[0], t_end, LAYOUT)
    assert predicted.device == forecast.device == torch.device(fake_cuda, 0)
    assert copies.count == 0
    assert optimizer.generate(history.requires_grad_(), times, t_end, LAYOUT).device == history.device


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_history_in_main_memory_gives_a_forecast_on_the_device(name, dtype, fake_cuda):
    with torch.device(fake_cuda):
        optimizer = get_optimizer_model(name)
    rows = [torch.randn(LAYOUT.size, dtype=dtype) for _ in range(SNAPSHOTS)]
    times = 20.0 * torch.arange(SNAPSHOTS, device=fake_cuda)
    forecast = optimizer.forecast(Snapshots(rows, times.device), times, times[-1:] + 40, LAYOUT)
    assert (forecast.device, forecast.dtype) == (times.device, torch.float32)


@every
@pytest.mark.parametrize("span", [100, 2**22])
def test_forecasts_of_one_history_equal_predictions_of_its_copies(name, span, monkeypatch):
    monkeypatch.setattr("metaopt.generative.base._SPAN", span)
    optimizer, (history, times, _) = build(name), inputs(batch=1)
    ends = times[0, -1] + torch.tensor([0.0, 20.0, 300.0])
    expected = optimizer.predict(history.expand(3, -1, -1), times.expand(3, -1), ends, LAYOUT)
    rows = [row.clone() for row in history[0]]
    torch.testing.assert_close(optimizer.forecast(Snapshots(rows, history.device), times[0], ends, LAYOUT), expected)
    with pytest.raises(LayoutMismatch, match="got 7 weights"):
        optimizer.forecast(Snapshots([torch.zeros(7)], history.device), times[0, :1], ends, LAYOUT)


@every
def test_observing_gives_a_state_of_the_same_shapes_on_the_device_without_waiting(name, fake_cuda):
    with torch.device(fake_cuda):
        optimizer = get_optimizer_model(name)
    if (state := optimizer.initial_state(LAYOUT)) is None:
        pytest.skip("it does not learn from a training")
    history, times, t_end = (each.to(fake_cuda) for each in inputs())
    shapes = [each.shape for each in state]
    with CopiesToTheHost() as copies, torch.no_grad():
        for count in range(1, SNAPSHOTS + 1):
            state = optimizer.observe(state, Snapshots.of(history[0, :count]), times[0, :count], LAYOUT)
        forecast = optimizer.forecast(Snapshots.of(history[0]), times[0], t_end, LAYOUT, state)
    assert [each.shape for each in state] == shapes
    assert {each.device for each in state} == {forecast.device} == {history.device}
    assert copies.count == 0
