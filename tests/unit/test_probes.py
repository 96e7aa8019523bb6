"""What probes measure, against values that are known or computed in another way; the contract has the rest."""

from copy import deepcopy
from math import sqrt
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from metaopt.core.errors import Diverged, InvalidConfig, LayoutMismatch, UnknownName
from metaopt.probes import PROBES, applicable, get_probe, get_probes, run_probe
from metaopt.probes.attention_names import attentions_of
from metaopt.probes.matrices import kinds_of
from metaopt.targets import get_target_model
from metaopt.tasks import Batch, Examples

from ..tiny_video import VIDEO, TinyVideo, TinyVideos, videos


def task_of(batch, loss=F.mse_loss, rows=4):
    """A task with the same few examples everywhere."""
    return SimpleNamespace(splits={"train": Examples(*batch)}, rows_at_once=rows, loss=loss)


NUMBERS = Batch(torch.randn(10, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(10, 3))


def mlp(seed=0):
    torch.manual_seed(seed)
    return get_target_model("MLP", in_features=6, widths=(8, 8), classes=3)


def measured(name, before, after, batch=NUMBERS, **options):
    return run_probe(get_probe(name), before, after, task_of(batch, **options), batch)


def changed(model, change):
    """A copy in which a function has changed weights in place."""
    after = deepcopy(model)
    with torch.no_grad():
        change(after)
    return after


def test_kinds_are_folded_names_of_equal_shapes():
    shapes = {f"blocks.{block}.{part}.weight": (4, 4) for block in (0, 1, 3) for part in "qk"}
    assert kinds_of({**shapes, "blocks.2.q.weight": (4, 8), "head.weight": (2, 4), "table": (2, 4)}) == {
        **{name: f"blocks.0-1,3.{name.split('.')[2]}" for name in shapes},
        "blocks.2.q.weight": "blocks.2.q",
        "head.weight": "head",
        "table": "table",
    }


def test_norms_of_a_scaled_and_a_turned_matrix():
    before = mlp()
    after = changed(before, lambda model: (model.layers[1].weight.mul_(1.5), model.layers[3].weight.neg_()))
    result = measured("weight-norms", before, after)
    assert [row["norm_ratio"] for row in result.rows] == pytest.approx([1.5, 1, 1])
    assert result.rows[0]["norm_before"] == pytest.approx(before.layers[1].weight.norm().item())
    assert result.values["largest_norm_ratio"] == pytest.approx(1.5)
    squares = [before.layers[place].weight.square().sum().item() for place in (1, 3, 5)]
    assert result.values["norm_ratio"] == pytest.approx(sqrt((2.25 * squares[0] + sum(squares[1:])) / sum(squares)))
    shares = measured("delta-budgets", before, after)
    assert [row["change"] for row in shares.rows] == pytest.approx([0.5, 2, 0])
    assert shares.values["mean_change"] == pytest.approx(2.5 / 3)
    assert shares.values["change"] == pytest.approx(sqrt((0.25 * squares[0] + 4 * squares[1]) / sum(squares)))


def test_a_matrix_of_zeros_has_no_ratio_and_its_change_no_share():
    before = changed(mlp(), lambda model: model.layers[5].weight.zero_())
    after = changed(before, lambda model: model.layers[5].weight.fill_(1.0))
    norms, shares = (measured(name, before, after) for name in ("weight-norms", "delta-budgets"))
    assert (norms.rows[2]["norm_ratio"], shares.rows[2]["change"]) == (None, None)
    assert norms.values["largest_norm_ratio"] == 1.0
    assert shares.values["largest_change"] == 0.0
    assert shares.rows[2]["norm_of_change"] == pytest.approx(sqrt(24))


def test_kinds_are_rows_of_the_summary():
    torch.manual_seed(0)
    model = get_target_model("GPT", vocab_size=12, block_size=6, n_layer=3, n_head=2, n_embd=8)
    tokens = torch.zeros(2, 6, dtype=torch.long)
    result = measured("weight-norms", model, model, Batch(tokens, tokens))
    kinds = {row["kind"]: row["matrices"] for row in result.summary}
    assert kinds["blocks.0-2.attention.qkv"] == 3
    assert sum(kinds.values()) == len(result.rows) == 2 + 3 * 4  # the head is tied


def test_ranks_of_changes_that_are_known():
    before = mlp()
    direction = torch.outer(torch.arange(1.0, 9), torch.arange(1.0, 7))
    after = changed(before, lambda model: model.layers[1].weight.add_(direction))
    after = changed(after, lambda model: model.layers[3].weight.add_(torch.eye(8)))
    one, all_, none = measured("spectrum", before, after).rows
    assert one["largest"] == pytest.approx(direction.norm().item(), rel=1e-5)
    assert (one["stable_rank"], one["effective_rank"]) == pytest.approx((1, 1), abs=1e-3)
    assert (all_["largest"], all_["stable_rank"], all_["effective_rank"]) == pytest.approx((1, 8, 8), rel=1e-5)
    assert (none["largest"], none["stable_rank"], none["effective_rank"], none["spectral_ratio"]) == (0, 0, 0, 1)
    assert one["spectral_after"] == pytest.approx(torch.linalg.matrix_norm(after.layers[1].weight, 2).item(), rel=1e-5)
    assert measured("spectrum", before, after).values["effective_rank"] == pytest.approx(4.5, rel=1e-2)


class Functional(nn.Module):
    """A network that calls its activations as functions, one of them twice from one module, on images."""

    def __init__(self):
        super().__init__()
        self.conv, self.act, self.out = nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Linear(4, 2)

    def forward(self, images):
        features = self.act(self.conv(images))
        return F.gelu(self.out(self.act(features - 1.0).mean((2, 3))))


def test_units_die_and_revive_in_modules_and_functions():
    torch.manual_seed(0)
    before = changed(Functional(), lambda model: model.conv.bias.copy_(torch.tensor([-99.0, 9, 9, 9])))
    after = changed(before, lambda model: model.conv.bias.copy_(torch.tensor([9.0, -99, -99, 9])))
    images = Batch(torch.randn(6, 1, 5, 5), torch.zeros(6, 2))
    result = measured("dead-units", before, after, images)
    first, again, last = result.rows
    assert first == {"activation": "act", "units": 4, "dead_before": 1, "dead_after": 2, "died": 2, "revived": 1}
    assert again == {**first, "activation": "act (call 2)"}
    assert (last["activation"], last["units"]) == ("Functional", 2)
    assert result.values["died"] == pytest.approx((4 + last["died"]) / 10)


def test_a_unit_is_alive_if_one_example_of_any_batch_activates_it():
    before = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU())
    before = changed(before, lambda model: model[0].weight.fill_(1.0))
    inputs = torch.full((9, 1), -1.0)
    inputs[8] = 1.0
    assert measured("dead-units", before, before, Batch(inputs, inputs)).values["dead_before"] == 0.0
    assert measured("dead-units", before, before, Batch(inputs[:8], inputs[:8])).values["dead_before"] == 1.0


def test_the_line_of_a_convex_loss_has_no_barrier_and_that_of_equal_networks_in_disguise_a_hill():
    convex = nn.Linear(6, 3)
    result = measured("loss-line", convex, changed(convex, lambda model: model.weight.add_(1.0)))
    assert (result.values["barrier"], result.values["hill"]) == (0.0, 0.0)
    assert result.values["loss_before"] == pytest.approx(F.mse_loss(convex(NUMBERS.inputs), NUMBERS.labels).item())
    before = mlp()
    order = torch.arange(7, -1, -1)

    def permute(model):
        for parameter in model.layers[1].parameters():
            parameter.copy_(parameter[order])
        model.layers[3].weight.copy_(model.layers[3].weight[:, order])

    batch = Batch(NUMBERS.inputs, before(NUMBERS.inputs).detach())
    result = measured("loss-line", before, changed(before, permute), batch)
    assert result.values["loss_after"] == pytest.approx(0.0, abs=1e-9)
    middle = result.rows[5]
    assert middle["fraction"] == 0.5
    assert (
        result.values["hill"]
        == pytest.approx(result.values["barrier"], rel=1e-5)
        == max(row["loss"] for row in result.rows)
    )
    between = changed(before, permute)
    with torch.no_grad():
        for one, other in zip(between.parameters(), before.parameters(), strict=True):
            one.copy_((one + other) / 2)
    assert middle["loss"] == pytest.approx(F.mse_loss(between(batch.inputs), batch.labels).item(), rel=1e-5)


def test_the_line_does_not_depend_on_running_statistics():
    torch.manual_seed(0)
    before = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    after = changed(before, lambda model: model[0].weight.add_(torch.randn(8, 6)))
    expected = measured("loss-line", before, after, rows=10).rows
    wrong = changed(after, lambda model: model[1].running_var.fill_(1e6))
    assert measured("loss-line", before, wrong, rows=10).rows == expected
    assert before[1].num_batches_tracked == 0


def test_the_drift_of_one_token_and_its_neighbours():
    batch = videos(30)
    before = TinyVideo()
    after = changed(before, lambda model: model.words.weight[3].neg_())
    values = measured("embedding-drift", before, after, batch).values
    tokens = before.unpack(batch.inputs)[2]
    share = (tokens == 3).sum() / (tokens != 0).sum()
    assert values["smallest_cosine"] == pytest.approx(-1.0)
    assert values["median_cosine"] == pytest.approx(1.0)
    assert values["mean_cosine"] == pytest.approx(1 - 2 * share.item())
    rows = measured("embedding-drift", before, after, batch).rows
    assert [row["tokens"] for row in rows] == (tokens != 0).sum(1).tolist()
    padded = changed(before, lambda model: model.words.weight[0].add_(9.0))
    assert measured("embedding-drift", before, padded, batch).values["smallest_cosine"] == pytest.approx(1.0)


def test_a_neighbour_changes_only_if_another_token_is_nearer():
    words = torch.tensor([[1.0, 0], [0.9, 0.1], [0.9, 0.1], [0, 1]])
    moved = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 0.9], [0, 1]])
    tokens = torch.tensor([[0, 1, 2, 3]])
    before, after = (nn.Embedding.from_pretrained(each) for each in (words, moved))
    for model in (before, after):
        model.embed = model.forward
    # The third and the fourth become neighbours; the first keeps one of two equal ones; the second loses its twin.
    assert measured("embedding-drift", before, after, Batch(tokens, tokens)).values["neighbours_changed"] == 0.5


def test_examples_of_padding_only_have_no_drift():
    batch = videos(2)
    batch.inputs[:, -5:] = 0
    with pytest.raises(InvalidConfig, match="all tokens of the examples are padding"):
        measured("embedding-drift", TinyVideo(), TinyVideo(), batch)


def test_deviations_of_attention_are_those_of_all_logits():
    torch.manual_seed(0)
    before, batch = TinyVideo(), videos(6)
    after = changed(before, lambda model: model.attn2.norm_q.weight.mul_(3.0))
    result = measured("attention-logits", before, after, batch)
    assert {(row["block"], row["side"]) for row in result.rows} == {("attn1", "self"), ("attn2", "cross")}
    assert result.values["cross_ratio"] == pytest.approx(3.0)
    assert result.values["self_ratio"] == pytest.approx(1.0, abs=0.2)
    x, t, _ = before.unpack(batch.inputs)
    pixels = x.flatten(2).mT
    stream = before.entry(torch.cat([pixels, t[:, None, None].expand(-1, pixels.shape[1], 1)], dim=-1))
    query, key, _ = before.attn1.parts(stream, stream)
    logits = query @ key.mT / sqrt(query.shape[-1])
    expected = logits.var(-1, correction=0).mean().sqrt().item()
    assert result.rows[0]["std_before"] == pytest.approx(expected, rel=1e-5)


def test_fused_projections_of_a_gpt():
    torch.manual_seed(0)
    before = get_target_model("GPT", vocab_size=12, block_size=6, n_layer=2, n_head=2, n_embd=8)
    after = changed(before, lambda model: model.blocks[0].attention.qkv.weight[:8].mul_(2.0))
    tokens = torch.randint(12, (5, 6))
    first, second = measured("attention-logits", before, after, Batch(tokens, tokens)).rows
    assert (first["side"], first["ratio"]) == ("self", pytest.approx(2.0))
    assert second["ratio"] == pytest.approx(1.0, abs=0.1)


def test_the_empty_text_may_stay_while_others_change():
    torch.manual_seed(0)
    before, batch = TinyVideo(), videos(6)
    after = changed(before, lambda model: model.words.weight[2:].add_(1.0))  # token 1 is the empty text
    result = measured("null-text-drift", before, after, batch)
    assert result.values["null_drift"] == 0.0
    assert result.values["text_drift"] > 0.01
    after = changed(before, lambda model: (model.exit.weight.mul_(1.25), model.exit.bias.mul_(1.25)))
    result = measured("null-text-drift", before, after, batch)
    assert result.values["largest_null_drift"] == pytest.approx(0.25, rel=1e-4)
    assert [row["text_drift"] for row in result.rows] == pytest.approx([0.25] * 6, rel=1e-4)
    assert VIDEO[0] == 3


def test_networks_of_two_architectures_cannot_be_compared():
    other = get_target_model("MLP", in_features=6, widths=(8, 9), classes=3)
    with pytest.raises(LayoutMismatch, match=r"layers.3.weight' is \[8, 8\] before and \[9, 8\] after"):
        measured("weight-norms", mlp(), other)


def test_values_that_are_not_finite_are_refused():
    broken = changed(mlp(), lambda model: model.layers[1].weight.fill_(torch.inf))
    with pytest.raises(Diverged, match="WeightNorms gives"):
        measured("weight-norms", mlp(), broken)


def test_a_probe_that_does_not_apply_and_no_examples():
    with pytest.raises(InvalidConfig, match="NullTextDrift does not apply to MLP: it has no methods unpack"):
        measured("null-text-drift", mlp(), mlp())
    with pytest.raises(InvalidConfig, match="there are no examples"):
        measured("loss-line", mlp(), mlp(), Batch(*(each[:0] for each in NUMBERS)))


def test_names_of_probes_are_checked():
    assert list(get_probes(["all"])) == PROBES.names()
    with pytest.raises(UnknownName, match="did you mean weight-norms"):
        get_probes(["weight-norm"])
    for names in ([], ["spectrum", "spectrum"], ["all", "spectrum"]):
        with pytest.raises(InvalidConfig):
            get_probes(names)
    task = task_of(NUMBERS)
    with pytest.raises(InvalidConfig, match="embedding-drift does not apply to MLP"):
        applicable(["spectrum", "embedding-drift"], mlp(), task)
    probes, reasons = applicable(["all"], mlp(), task)
    assert {*probes, *reasons} == {*PROBES.names()}
    assert "embedding-drift" in reasons


def test_the_task_of_videos_is_a_task():
    assert {*TinyVideos().splits} == {"train", "meta", "validation"}
    assert len([*attentions_of(TinyVideo())]) == 2
