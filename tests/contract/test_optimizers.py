"""What every generative optimizer must keep, ours and those of plug-ins."""

import pytest
import torch

from metaopt.core.errors import LayoutMismatch
from metaopt.generative import GENERATIVE_OPTIMIZERS, get_optimizer_model
from metaopt.generative.files import load_optimizer_file, save_optimizer
from metaopt.weights.layout import Layout, WeightTensor

SHAPES = {
    "a number": [()],
    "one weight": [(1,)],
    "tensors smaller than a token": [(3,), (), (2, 2), (1,)],
    "a convolution": [(4, 3, 3, 3), (4,), (10, 36), (10,)],
    "many tensors": [(2, 5)] * 40,
}
SNAPSHOTS = 7

every = pytest.mark.parametrize("name", GENERATIVE_OPTIMIZERS.names())


def layout_of(shapes):
    return Layout(tuple(WeightTensor(f"w{i}", shape, "float32") for i, shape in enumerate(shapes)))


LAYOUT = layout_of(SHAPES["a convolution"])


def build(name):
    """An optimizer that does something: where it has weights, they are not those that it starts with."""
    optimizer = get_optimizer_model(name)
    with torch.no_grad():
        for parameter in optimizer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return optimizer.eval()


def past(layout=LAYOUT, batch=3, snapshots=SNAPSHOTS):
    """Weights on their way, when they were there, and a time ahead of them."""
    random = torch.Generator().manual_seed(snapshots)
    steps = torch.randn(batch, snapshots, layout.size, generator=random)
    times = 10.0 * torch.arange(snapshots) + 100 * torch.arange(batch)[:, None]
    return steps.cumsum(1), times, times[:, -1] + 15


@every
def test_the_same_past_gives_the_same_weights(name):
    optimizer, given = build(name), past()
    assert torch.equal(optimizer.predict(*given, LAYOUT), optimizer.predict(*given, LAYOUT))


@every
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("snapshots", [1, 2, SNAPSHOTS])
def test_any_layout_and_any_number_of_snapshots(name, shapes, snapshots):
    layout = layout_of(shapes)
    predicted = build(name).predict(*past(layout, snapshots=snapshots), layout)
    assert predicted.shape == (3, layout.size)
    assert predicted.dtype == torch.float32
    assert predicted.isfinite().all()


@every
def test_snapshots_older_than_it_can_use_change_nothing(name):
    optimizer = build(name)
    history, times, t_end = past(snapshots=optimizer.history + 3)
    used = optimizer.predict(history[:, -optimizer.history :], times[:, -optimizer.history :], t_end, LAYOUT)
    assert torch.equal(optimizer.predict(history, times, t_end, LAYOUT), used)


@every
@pytest.mark.parametrize("there", [1, 2, 4])
def test_absent_snapshots_are_as_if_they_were_not_given(name, there):
    optimizer, (history, times, t_end) = build(name), past()
    history, times = history[:, -there:], times[:, -there:]
    missing = 5 - there
    filled = torch.cat([history[:, -1:].expand(-1, missing, -1), history], 1)
    filled_times = torch.cat([times[:, -1:].expand(-1, missing), times], 1)
    shorter = optimizer.predict(history, times, t_end, LAYOUT)
    torch.testing.assert_close(optimizer.predict(filled, filled_times, t_end, LAYOUT), shorter)


@every
def test_permuting_the_batch_permutes_the_output(name):
    optimizer, given, order = build(name), past(), torch.tensor([2, 0, 1])
    permuted = optimizer.predict(*(each[order] for each in given), LAYOUT)
    torch.testing.assert_close(permuted, optimizer.predict(*given, LAYOUT)[order])


@every
def test_a_batch_is_what_its_members_are_one_by_one(name):
    optimizer, given = build(name), past()
    alone = [optimizer.predict(*(each[row : row + 1] for each in given), LAYOUT) for row in range(3)]
    torch.testing.assert_close(torch.cat(alone), optimizer.predict(*given, LAYOUT))


@every
def test_forward_is_predict_with_the_last_snapshot_apart(name):
    optimizer, (history, times, t_end) = build(name), past()
    apart = optimizer(history[:, -1], times[:, -1], t_end, LAYOUT, history[:, :-1], times[:, :-1])
    torch.testing.assert_close(apart, optimizer.predict(history, times, t_end, LAYOUT))
    alone = optimizer(history[:, -1], times[:, -1], t_end, LAYOUT)
    torch.testing.assert_close(alone, optimizer.predict(history[:, -1:], times[:, -1:], t_end, LAYOUT))


@pytest.mark.parametrize("name", ["Hold", "Line", "PerceiverOptimizer", "Slopes"])
@pytest.mark.parametrize("snapshots", [1, SNAPSHOTS])
def test_a_horizon_of_zero_gives_the_weights_of_now(name, snapshots):
    history, times, _ = past(snapshots=snapshots)
    assert torch.equal(build(name).predict(history, times, times[:, -1], LAYOUT), history[:, -1])


@every
def test_shapes_that_disagree_are_refused_in_words(name):
    optimizer, (history, times, t_end) = build(name), past()
    for given, message in [
        ((history[0], times, t_end), r"history has shape \(7, 482\); expected \[batch, snapshots ≥ 1, weights\]"),
        ((history[:, :0], times[:, :0], t_end), "snapshots ≥ 1"),
        ((history, times[:, 1:], t_end), r"times have shapes \(3, 6\) and \(3,\); .* needs \(3, 7\) and \(3,\)"),
        ((history, times, t_end[:1]), r"needs \(3, 7\) and \(3,\)"),
        ((history[..., 1:], times, t_end), r"got 481 weights; the layout has 482: .* \(w0\[4, 3, 3, 3\]"),
    ]:
        with pytest.raises(LayoutMismatch, match=message):
            optimizer.predict(*given, LAYOUT)


@every
def test_forward_refuses_shapes_that_disagree_in_words(name):
    optimizer, (history, times, t_end) = build(name), past()
    now, older = (history[:, -1], times[:, -1], t_end, LAYOUT), (history[:, :-1], times[:, :-1])
    for given, message in [
        ((now[0][..., 1:], *now[1:]), "got 481 weights; the layout has 482"),
        ((now[0][0], now[1][0], *now[2:]), r"weights \(482,\) and t_start \(\)"),
        ((*now, older[0][..., 1:], older[1]), r"history \(3, 6, 481\)"),
        ((*now, older[0][1:], older[1][1:]), r"history \(2, 6, 482\)"),
        ((*now, older[0]), "history is given without t_history"),
        ((*now, None, older[1]), "t_history is given without history"),
    ]:
        with pytest.raises(LayoutMismatch, match=message):
            optimizer(*given)


@every
def test_a_file_gives_back_an_equal_optimizer_and_leaves_randomness_alone(name, tmp_path):
    optimizer, path = build(name), tmp_path / "optimizer.safetensors"
    before = torch.get_rng_state()
    save_optimizer(optimizer, path, {"note": "é"})
    loaded = load_optimizer_file(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert type(loaded) is type(optimizer)
    assert loaded.config == optimizer.config
    assert not loaded.training
    assert torch.equal(loaded.predict(*past(), LAYOUT), optimizer.predict(*past(), LAYOUT))


@every
def test_what_has_weights_can_learn_and_predicting_keeps_no_graph(name):
    optimizer, (history, times, t_end) = build(name), past()
    assert not optimizer.predict(history, times, t_end, LAYOUT).requires_grad
    history.requires_grad_()
    optimizer(history[:, -1], times[:, -1], t_end, LAYOUT, history[:, :-1], times[:, :-1]).square().mean().backward()
    assert history.grad.isfinite().all()
    assert history.grad.any()
    for label, parameter in optimizer.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.isfinite().all(), label
        assert parameter.grad.any(), label


@every
def test_what_is_given_stays_as_it_is_and_is_not_given_back(name):
    optimizer, given = build(name), past()
    copies = [each.clone() for each in given]
    optimizer.predict(*given, LAYOUT).fill_(7)
    assert all(map(torch.equal, given, copies))


@every
def test_a_configuration_survives_plain_values(name):
    config = get_optimizer_model(name).config
    assert type(config).from_mapping(config.to_mapping()) == config
