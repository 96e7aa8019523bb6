"""A tiny network of flow matching that is conditioned on text, and its task: a few packed videos."""

import types

import torch
from torch import nn
from torch.nn import functional as F

from metaopt.core.config import Config
from metaopt.tasks import Batch, Examples, Task

VIDEO, LENGTH, WORDS, WIDTH, HEADS = (3, 2, 2, 2), 5, 11, 8, 2
"""Channels, frames, height and width; tokens of a text; vocabulary; width of the network; heads."""

SIZE = torch.Size(VIDEO).numel()


class Attention(nn.Module):
    """Attention with the names of diffusers."""

    def __init__(self):
        super().__init__()
        self.heads = HEADS
        self.to_q, self.to_k, self.to_v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.norm_q, self.norm_k = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)

    def parts(self, tokens, others):
        """Queries, keys and values of each head."""
        parts = self.norm_q(self.to_q(tokens)), self.norm_k(self.to_k(others)), self.to_v(others)
        return [part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts]

    def forward(self, tokens, others=None):
        mixed = F.scaled_dot_product_attention(*self.parts(tokens, tokens if others is None else others))
        return mixed.transpose(1, 2).flatten(2)


class TinyVideo(nn.Module):
    """Velocity of a video, given a text; token 0 is padding."""

    def __init__(self):
        super().__init__()
        self.config = types.SimpleNamespace(video_shape=VIDEO)
        self.words = nn.Embedding(WORDS, WIDTH)
        self.entry, self.exit = nn.Linear(VIDEO[0] + 1, WIDTH), nn.Linear(WIDTH, VIDEO[0])
        self.attn1, self.attn2 = Attention(), Attention()
        self.hidden, self.act = nn.Linear(WIDTH, WIDTH), nn.GELU()

    def embed(self, tokens):
        return self.words(tokens) * (tokens != 0).unsqueeze(-1)

    def null_tokens(self, batch):
        return F.pad(torch.ones(batch, 1, dtype=torch.long), (0, LENGTH - 1))

    def unpack(self, inputs):
        x, t, tokens = inputs.split((SIZE, 1, LENGTH), dim=1)
        return x.unflatten(1, VIDEO), t.squeeze(1), tokens.long()

    def velocity(self, x, t, embeddings):
        pixels = x.flatten(2).mT
        times = t[:, None, None].expand(-1, pixels.shape[1], 1)
        stream = self.entry(torch.cat([pixels, times], dim=-1))
        stream = stream + self.attn1(stream)
        stream = stream + self.attn2(stream, embeddings)
        return self.exit(stream + self.act(self.hidden(stream))).mT.unflatten(2, VIDEO[1:])

    def forward(self, inputs):
        x, t, tokens = self.unpack(inputs)
        return self.velocity(x, t, self.embed(tokens)).flatten(1)


def videos(count, seed=0):
    """Packed videos with texts of two to five tokens, and velocities."""
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, WORDS, (count, LENGTH), generator=random)
    lengths = torch.randint(2, LENGTH + 1, (count, 1), generator=random)
    tokens = tokens * (torch.arange(LENGTH) < lengths)
    x, t = torch.randn(count, SIZE, generator=random), torch.rand(count, 1, generator=random)
    return Batch(torch.cat([x, t, tokens], dim=1), torch.randn(count, SIZE, generator=random))


class TinyVideos(Task):
    """Predict velocities of random videos."""

    Config = Config
    kind, topology = "regression", "transformer"
    model_facts, baseline_loss = types.MappingProxyType({}), 1.0

    def __init__(self):
        self.splits = {name: Examples(*videos(12, seed)) for seed, name in enumerate(("train", "meta", "validation"))}

    def loss(self, outputs, labels):
        return F.mse_loss(outputs, labels)

    def metrics(self, outputs, labels):
        return {}
