"""Attention of other libraries: the probe finds its queries, keys and heads under the names that they have there."""

from math import sqrt
from types import SimpleNamespace

import pytest
import torch

from metaopt.probes import get_probe, run_probe
from metaopt.probes.attention_names import attentions_of
from metaopt.tasks import Batch, Examples

TOKENS = torch.randint(12, (3, 5), generator=torch.Generator().manual_seed(0))


class Wrapped(torch.nn.Module):
    """A network whose outputs are tensors."""

    def __init__(self, network, call):
        super().__init__()
        self.network, self.call = network, call

    def forward(self, inputs):
        return self.call(self.network, inputs)


def encoder(transformers, kind="T5"):
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=12, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2, dropout_rate=0.0
    )
    return getattr(transformers, f"{kind}EncoderModel")(config)


def translator(transformers):
    config = transformers.T5Config(
        vocab_size=12, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, dropout_rate=0.0
    )
    return transformers.T5Model(config)


def llama(transformers):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2}
    return transformers.LlamaModel(transformers.LlamaConfig(vocab_size=12, num_hidden_layers=1, **sizes))


def gpt2(transformers):
    config = transformers.GPT2Config(vocab_size=12, n_layer=1, n_head=2, n_embd=8, n_positions=8)
    return transformers.GPT2Model(config)


def states(network, tokens):
    return network(tokens).last_hidden_state


NETWORKS = {
    "T5": (encoder, states, {"self": 2}),
    "UMT5": (lambda library: encoder(library, "UMT5"), states, {"self": 2}),
    "T5 with a decoder": (
        translator,
        lambda network, tokens: network(tokens, decoder_input_ids=tokens).last_hidden_state,
        {"self": 2, "cross": 1},
    ),
    "Llama": (llama, states, {"self": 1}),
    "GPT-2": (gpt2, states, {"self": 1}),
}


def deviations(model, inputs):
    """The rows of the probe for two equal networks."""
    batch = Batch(inputs, inputs)
    task = SimpleNamespace(splits={"train": Examples(*batch)}, rows_at_once=2)
    return run_probe(get_probe("attention-logits"), model, model, task, batch).rows


@pytest.mark.parametrize("name", NETWORKS)
def test_attention_of_transformers(name):
    transformers = pytest.importorskip("transformers")
    build, call, sides = NETWORKS[name]
    torch.manual_seed(0)
    model = Wrapped(build(transformers), call).eval()
    rows = deviations(model, TOKENS)
    assert {side: sum(row["side"] == side for row in rows) for side in sides} == sides
    assert len(rows) == sum(sides.values())
    first = next(attentions_of(model))
    with torch.no_grad():
        expected = reference(model, first)
    assert rows[0]["std_before"] == pytest.approx(expected, rel=1e-4)


def reference(model, attention):
    """From all logits of the first attention, whose inputs are seen by a hook."""
    found = {}
    handle = attention.query.register_forward_hook(lambda module, inputs, output: found.update(inputs=inputs[0]))
    model(TOKENS)
    handle.remove()
    query, key = attention.query(found["inputs"]), attention.key(found["inputs"])
    if attention.query is attention.key:
        query, key, _ = query.chunk(3, dim=-1)
    query = query.unflatten(-1, (attention.heads, -1)).transpose(1, 2)
    key = key.unflatten(-1, (-1, query.shape[-1])).transpose(1, 2)
    logits = query @ key.repeat_interleave(query.shape[1] // key.shape[1], dim=1).mT
    logits = logits / sqrt(query.shape[-1]) if attention.is_scaled else logits
    return logits.var(-1, correction=0).mean().sqrt().item()


def test_attention_of_wan_in_diffusers():
    module = pytest.importorskip("diffusers.models.transformers.transformer_wan")
    torch.manual_seed(0)
    network = module.WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=8, freq_dim=8, ffn_dim=16,
        num_layers=2, cross_attn_norm=True,
    )  # fmt: skip
    texts = torch.randn(3, 5, 8)

    def call(network, video):
        return network(video, torch.ones(len(video)), texts[: len(video)]).sample

    rows = deviations(Wrapped(network, call).eval(), torch.randn(3, 4, 2, 4, 4))
    assert [(row["block"].rpartition("network.")[2], row["side"]) for row in rows] == [
        (f"blocks.{block}.{name}", side) for block in (0, 1) for name, side in (("attn1", "self"), ("attn2", "cross"))
    ]
    assert all(row["std_before"] > 0 for row in rows)
    (first, *_) = attentions_of(network)
    assert (type(first.query_output).__name__, first.heads) == ("RMSNorm", 2)


def test_activations_that_call_no_function_of_torch():
    transformers = pytest.importorskip("transformers")
    model = Wrapped(gpt2(transformers), states).eval()
    with torch.no_grad():
        model.network.h[0].mlp.c_fc.bias[:3] = -99.0
    batch = Batch(TOKENS, TOKENS)
    task = SimpleNamespace(splits={"train": Examples(*batch)}, rows_at_once=2)
    (row,) = run_probe(get_probe("dead-units"), model, model, task, batch).rows
    assert (row["activation"], row["units"], row["dead_before"]) == ("network.h.0.mlp.act", 32, 3)
