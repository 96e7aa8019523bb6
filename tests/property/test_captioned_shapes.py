import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaopt.diffusion import Noisy, Tokenizer, pack, unpack
from metaopt.diffusion.captions import PAD, mask_of

TOKENIZER = Tokenizer()
prompts = st.lists(st.lists(st.sampled_from(TOKENIZER.words[2:]), max_size=7).map(" ".join), max_size=5)


@given(prompts)
def test_prompts_round_trip(texts):
    tokens = TOKENIZER.encode(texts)
    assert tokens.shape == (len(texts), 8)
    assert TOKENIZER.decode(tokens) == texts
    assert torch.equal(mask_of(tokens).sum(1), torch.tensor([len(text.split()) + 1 for text in texts]).long())
    assert tokens[~mask_of(tokens)].eq(PAD).all()


@settings(deadline=None)
@given(
    st.integers(0, 4),
    st.tuples(*[st.integers(1, 3)] * 4),
    st.integers(1, 5),
    st.integers(0, 2**24 - 1),
    st.integers(0, 2**31),
)
def test_rows_round_trip(batch, video_shape, length, largest, seed):
    random = torch.Generator().manual_seed(seed)
    noisy = Noisy(
        torch.randn(batch, *video_shape, generator=random),
        torch.rand(batch, generator=random),
        torch.randint(largest + 1, (batch, length), generator=random),
    )
    found = unpack(pack(noisy), video_shape)
    assert all(torch.equal(one, other) for one, other in zip(noisy, found, strict=True))
    assert found.tokens.dtype == torch.long
