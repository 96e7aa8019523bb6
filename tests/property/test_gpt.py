"""GPT is causal."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaopt.targets.transformer import GPT, GPTConfig

VOCABULARY, LONGEST = 7, 9
TOKENS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=LONGEST)


@settings(max_examples=50, deadline=None)
@given(tokens=TOKENS, others=TOKENS, seed=st.integers(0, 3), tied=st.booleans())
def test_outputs_do_not_depend_on_later_tokens(tokens, others, seed, tied):
    torch.manual_seed(seed)
    config = GPTConfig(vocab_size=VOCABULARY, block_size=LONGEST, n_layer=2, n_head=2, n_embd=8, tied=tied)
    model = GPT(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)  # the initial weights are so small that attention hardly mixes tokens
    whole = model(torch.tensor([(tokens + others)[:LONGEST]]))
    start = model(torch.tensor([tokens]))
    torch.testing.assert_close(whole[:, : len(tokens)], start, rtol=1e-4, atol=1e-4)
