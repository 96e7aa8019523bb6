"""PerceiverOptimizer: its behaviour beyond the contract of generative optimizers."""

import weakref

import perceiver_pytorch
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from metaopt.core.errors import InvalidConfig
from metaopt.generative import PerceiverOptimizer, get_optimizer_model
from metaopt.weights.layout import Layout, WeightTensor
from metaopt.weights.snapshots import Snapshots
from metaopt.weights.tokens import token_grid

SMALL = {"dim": 16, "num_latents": 8, "latent_dim": 16, "hidden": 24, "token_size": 8}


def layout_of(*shapes):
    return Layout(tuple(WeightTensor(f"w{i}", shape, "float32") for i, shape in enumerate(shapes)))


LAYOUT = layout_of((8, 3, 3, 3), (8,), (10, 48), (10,))
SLICES = LAYOUT.offsets


def build(like=None, **options):
    """An optimizer whose parameters differ from their initial values; those of `like`, if given."""
    optimizer = get_optimizer_model("PerceiverOptimizer", **{**SMALL, **options}).eval()
    with torch.no_grad():
        for parameter in optimizer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    if like is not None:
        optimizer.load_state_dict(like.state_dict())
    return optimizer


def inputs(layout=LAYOUT, batch=2, snapshots=5):
    random = torch.Generator().manual_seed(1)
    steps = torch.randn(batch, snapshots, layout.size, generator=random)
    times = (20.0 * torch.arange(snapshots)).expand(batch, -1)
    return steps.cumsum(1), times, times[:, -1] + 40


def change(optimizer, history, times, t_end, layout=LAYOUT):
    return optimizer.predict(history, times, t_end, layout) - history[:, -1]


def test_the_network_is_the_perceiver_io_of_perceiver_pytorch():
    assert type(PerceiverOptimizer().perceiver) is perceiver_pytorch.PerceiverIO


@pytest.mark.parametrize("snapshots", [1, 3, 5])
def test_untrained_it_equals_hold_bit_for_bit(snapshots):
    history, times, t_end = inputs(snapshots=snapshots)
    history[:, -1, :4] = torch.tensor([0.0, 1e-38, -1e15, 1e-45])
    untrained = get_optimizer_model("PerceiverOptimizer", **SMALL)
    assert torch.equal(untrained.predict(history, times, t_end, LAYOUT), history[:, -1])


@pytest.mark.parametrize("snapshots", [1, 3, 9])
def test_untrained_with_start_slopes_it_equals_slopes(snapshots):
    history, times, t_end = inputs(snapshots=snapshots)
    untrained = get_optimizer_model("PerceiverOptimizer", **SMALL, start="slopes", history=9, spacing="doubling")
    expected = get_optimizer_model("Slopes", history=9).predict(history, times, t_end, LAYOUT)
    torch.testing.assert_close(untrained.predict(history, times, t_end, LAYOUT), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(untrained.predict(history, times, times[:, -1], LAYOUT), history[:, -1])


def test_with_start_slopes_it_scales_slopes_by_factors_between_0_and_2():
    history, times, t_end = inputs(snapshots=2)  # one difference, so Slopes has one direction
    optimizer = build(start="slopes", history=9, spacing="doubling")
    with torch.no_grad():
        optimizer.coefficients.bias.normal_(0, 3, generator=torch.Generator().manual_seed(3))
        optimizer.coefficients.weight.normal_(0, 1, generator=torch.Generator().manual_seed(4))
    slopes = get_optimizer_model("Slopes", history=9).predict(history, times, t_end, LAYOUT) - history[:, -1]
    factors = change(optimizer, history, times, t_end) / slopes
    assert factors.min() > -1e-3
    assert factors.max() < 2 + 1e-3
    assert factors.std() > 0.01


def test_gains_multiply_the_change_of_each_tensor_by_its_place():
    history, times, t_end = inputs()
    plain = build()
    gained = build(gains=True)
    gained.load_state_dict({**plain.state_dict(), "gains": torch.zeros(5)})
    torch.testing.assert_close(change(gained, history, times, t_end), change(plain, history, times, t_end))
    gained.evolved.copy_(torch.tensor([0.0, 0.0, -0.5, 0.2, 9.0]))  # of vectors, of matrices, of other tensors
    ratios = change(gained, history, times, t_end) / change(plain, history, times, t_end)
    for piece, exponent in zip(LAYOUT.split(ratios), (1.5, -0.5, 0.2, -0.5), strict=True):
        torch.testing.assert_close(piece, torch.tensor(exponent).exp().expand_as(piece), rtol=1e-2, atol=1e-2)
    assert torch.equal(gained.predict(history, times, times[:, -1], LAYOUT), history[:, -1])
    assert plain.evolved is None


def test_with_doubling_spacing_it_uses_the_snapshots_of_ages_0_1_2_4_8():
    optimizer, (history, times, t_end) = build(history=9, spacing="doubling"), inputs(snapshots=12)
    expected = change(optimizer, history, times, t_end)
    for row in range(12):
        other = history.clone()
        other[:, row] += torch.randn(LAYOUT.size, generator=torch.Generator().manual_seed(row))
        seen = not torch.equal(change(optimizer, other, times, t_end), expected)
        assert seen == (11 - row in (0, 1, 2, 4, 8)), f"{11 - row} before the last"


def test_a_short_history_equals_one_filled_with_copies():
    optimizer, (history, times, t_end) = build(history=9, spacing="doubling"), inputs(snapshots=4)
    filled = torch.cat([history[:, -1:].expand(-1, 5, -1), history], 1)
    their_times = torch.cat([times[:, -1:].expand(-1, 5), times], 1)
    short, full = (change(optimizer, *each, t_end) for each in ((history, times), (filled, their_times)))
    assert torch.equal(short, full)


def test_the_forecast_depends_on_all_snapshots():
    optimizer, (history, times, t_end) = build(), inputs()
    expected = change(optimizer, history, times, t_end)
    assert not torch.equal(change(optimizer, 1.1 * history, times, t_end), expected)
    older = history.clone()
    older[:, 0] += 0.5
    assert not torch.equal(change(optimizer, older, times, t_end), expected)


def test_the_forecast_of_a_tensor_depends_on_the_other_tensors():
    optimizer, (history, times, t_end) = build(), inputs()
    expected = change(optimizer, history, times, t_end)
    other = history.clone()
    other[..., : SLICES[1]] *= -torch.arange(1.0, 6.0)[:, None]
    assert not torch.equal(change(optimizer, other, times, t_end)[:, SLICES[1] :], expected[:, SLICES[1] :])


@pytest.mark.parametrize("factor", [1e-3, 3.0, 1e3])
def test_the_relative_change_of_a_tensor_depends_on_its_scale(factor):
    """The LayerNorm of the encoder would discard the scale."""
    optimizer, (history, times, t_end) = build(), inputs()
    scaled = history.clone()
    scaled[..., : SLICES[1]] *= factor
    before = change(optimizer, history, times, t_end)[:, : SLICES[1]]
    after = change(optimizer, scaled, times, t_end)[:, : SLICES[1]] / factor
    assert ((after - before).norm() / before.norm()).item() > 0.01


def test_each_token_has_its_own_coefficients():
    """All tokens change alike here, so that they differ only in their position."""
    optimizer, layout = build(), layout_of((4, 8), (8,), (4, 4, 2))
    history = torch.arange(5.0)[:, None].expand(5, layout.size)[None] + 1
    moved = change(optimizer, history, *inputs(batch=1)[1:], layout)
    tokens = token_grid(layout, 8).cut(moved, 0, 9)[0]
    torch.testing.assert_close(tokens, tokens[:, :1].expand(-1, 8))
    assert len(tokens[:, 0].unique()) == 9
    assert tokens[:, 0].std() > 1e-3 * tokens[:, 0].abs().mean()


def test_the_forecast_depends_on_the_horizon():
    optimizer, (history, times, t_end) = build(), inputs()
    ends = [change(optimizer, history, times, t_end + later) for later in (0.0, 10.0, 500.0)]
    assert not torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[1], ends[2])
    assert all(end.isfinite().all() for end in ends)


@pytest.mark.parametrize("limit", [9, 40])
def test_slices_give_the_outputs_and_gradients_of_the_whole(limit):
    whole, (history, times, t_end) = build(slice_tokens=10_000), inputs()
    sliced = build(whole, slice_tokens=limit)
    outputs, gradients = [], []
    for optimizer in (whole, sliced):
        given = history.clone().requires_grad_()
        output = optimizer.generate(given, times, t_end, LAYOUT)
        (output * torch.linspace(-1, 1, LAYOUT.size)).sum().backward()
        outputs.append(output.detach())
        gradients.append([given.grad, *(parameter.grad for parameter in optimizer.parameters())])
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-6, atol=1e-6)
    for ours, expected in zip(gradients[1], gradients[0], strict=True):
        scale = expected.abs().max().item()
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5 * scale)
    assert torch.equal(sliced.predict(history, times, t_end, LAYOUT), outputs[1])  # checkpointed or not


def test_slices_keep_the_order_of_the_weights():
    optimizer = get_optimizer_model("PerceiverOptimizer", **SMALL, slice_tokens=100, encoded_tokens=50)
    layout = layout_of((301, 37), (1,), (5, 5, 5))
    history, times, t_end = inputs(layout, batch=1)
    assert torch.equal(optimizer.predict(history, times, t_end, layout), history[:, -1])


def test_a_sample_of_the_tokens_is_encoded_and_every_token_is_decoded():
    everything, (history, times, t_end) = build(encoded_tokens=10_000), inputs()
    expected = change(everything, history, times, t_end)
    count = token_grid(LAYOUT, 8).count
    assert torch.equal(change(build(everything, encoded_tokens=count), history, times, t_end), expected)
    for fewer in (1, 2, 9, count - 1):
        sampled = change(build(everything, encoded_tokens=fewer), history, times, t_end)
        assert sampled.isfinite().all()
        assert not torch.equal(sampled, expected)
        assert (sampled != 0).float().mean() > 0.99


def test_the_forecast_of_a_token_outside_the_sample_depends_on_its_history():
    optimizer, (history, times, t_end) = build(encoded_tokens=4), inputs()  # the first token of each tensor
    other = history.clone()
    other[:, 0, 8:16] += 1
    before, after = (change(optimizer, each, times, t_end) for each in (history, other))
    assert not torch.equal(before[:, 8:16], after[:, 8:16])


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30, 1e15])
def test_constant_weights_give_finite_forecasts_and_gradients(value):
    optimizer = build()
    _, times, t_end = inputs()
    history = torch.full((2, 5, LAYOUT.size), value, requires_grad=True)
    output = optimizer.generate(history, times, t_end, LAYOUT)
    assert output.isfinite().all()
    output.mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in optimizer.parameters())


def test_a_tensor_of_constant_zeros_stays_zero():
    optimizer, (history, times, t_end) = build(), inputs()
    history[..., SLICES[1] : SLICES[2]] = 0.0
    predicted = optimizer.predict(history, times, t_end, LAYOUT)
    assert predicted.isfinite().all()
    assert (predicted[:, SLICES[1] : SLICES[2]] == 0).all()


@pytest.mark.parametrize(
    "options",
    [
        {"history": 1},
        {"history": 2, "spacing": "doubling", "start": "slopes"},
        {"token_size": 1},
        {"dim": 8, "heads": 3, "cross_heads": 5},
    ],
)
def test_smallest_configurations_work(options):
    optimizer, (history, times, t_end) = build(**options), inputs()
    moved = change(optimizer, history, times, t_end)
    assert moved.isfinite().all()
    assert moved.any()


def test_start_slopes_with_one_snapshot_is_an_error():
    with pytest.raises(InvalidConfig, match="a slope needs 2 snapshots or more"):
        get_optimizer_model("PerceiverOptimizer", start="slopes", history=1)


@pytest.mark.parametrize("options", [{"history": 0}, {"dim": 7}, {"token_size": 0}, {"slice_tokens": 0}, {"depth": 0}])
def test_an_invalid_size_is_an_error(options):
    with pytest.raises(InvalidConfig, match=next(iter(options))):
        get_optimizer_model("PerceiverOptimizer", **options)


class Cost(TorchDispatchMode):
    """Counts operations that are no views, and the peak of the memory that results take [bytes]."""

    def __init__(self):
        super().__init__()
        self.operations = self.bytes = self.peak = 0
        self.storages = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.operations += not (function.is_view or "prim" in str(function))
        for tensor in (each for each in (result if isinstance(result, tuple) else (result,))):
            if isinstance(tensor, torch.Tensor) and not function.is_view:
                self.taken(tensor.untyped_storage())
        return result

    def taken(self, storage):
        if (key := storage._cdata) not in self.storages:
            self.storages.add(key)
            self.bytes += (size := storage.nbytes())
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self.freed, key, size)

    def freed(self, key, size):
        self.storages.discard(key)
        self.bytes -= size


def cost_of_forecast(device, *shapes):
    with torch.device(device):
        optimizer, layout = get_optimizer_model("PerceiverOptimizer"), layout_of(*shapes)
    rows = [torch.zeros(layout.size, dtype=torch.bfloat16) for _ in range(5)]
    times = 20.0 * torch.arange(5, device=device)
    optimizer.requires_grad_(False)
    for _ in range(2):  # the first one makes the tables of the layout
        with Cost() as cost:
            forecast = optimizer.forecast(Snapshots(rows, times.device), times, times[-1:] + 40, layout)
    return cost.operations, cost.peak - forecast.nbytes


def test_the_number_of_operations_does_not_depend_on_the_number_of_tensors(fake_cuda):
    few, many = (cost_of_forecast(fake_cuda, *[(30, 33), (7,)] * count)[0] for count in (2, 200))
    assert few == many < 250


def test_the_memory_of_a_forecast_is_bounded(fake_cuda):
    operations, memory = cost_of_forecast(fake_cuda, *[(3000, 5000)] * 5)
    assert operations < 2500
    assert memory < 0.4e9  # where the history in float32 has 1.5 GB
