"""HOPE is causal: with any memory, window and length, an output depends on earlier tokens only."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaopt.nested import Hope, HopeConfig

VOCABULARY, LONGEST = 7, 11
TOKENS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=LONGEST)


@pytest.mark.parametrize("memory", ["none", "linear", "titan", "self"])
@settings(max_examples=12, deadline=None)
@given(tokens=TOKENS, others=TOKENS, seed=st.integers(0, 3), window=st.sampled_from([None, 1, 3]))
def test_outputs_do_not_depend_on_later_tokens(memory, tokens, others, seed, window):
    torch.manual_seed(seed)
    sizes = {"vocab_size": VOCABULARY, "block_size": LONGEST, "n_layer": 2, "n_head": 2, "n_embd": 8}
    model = Hope(HopeConfig(memory=memory, window=window, chunk=3, **sizes)).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # the initial weights are so small that tokens hardly mix
    whole = model(torch.tensor([(tokens + others)[:LONGEST]]))
    start = model(torch.tensor([tokens]))
    torch.testing.assert_close(whole[:, : len(tokens)], start)
