"""The network TextToVideo, its cached embeddings, and its samples; the one file of these that imports diffusers."""

import copy
from math import prod

import pytest
import torch
from torch.func import functional_call

from metaopt.core.errors import InvalidConfig
from metaopt.core.rng import generator
from metaopt.diffusion import PROMPTS, EmbeddingCache, TextToVideo, encoder_digest, sample, video_chart
from metaopt.diffusion.captions import END, PAD
from metaopt.figures import rendered
from metaopt.recording.functional import network_losses
from metaopt.targets import get_target_model
from metaopt.tasks import Batch, load_task
from metaopt.weights.layout import Layout

from ..wan_files import TI2V_5B

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

SMALL = {
    "num_layers": 1, "heads": 2, "head_dim": 8, "ffn_dim": 16, "text_dim": 12, "text_layers": 1, "text_heads": 2,
    "text_head_dim": 6, "text_ffn_dim": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def task():
    return load_task("captioned-shapes", examples=120, frames=2, size=6)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "metaopt" / "embeddings"


def build(task, seed=0, **options):
    torch.manual_seed(seed)
    return get_target_model("TextToVideo", task.model_facts, **SMALL, **options)


class Calls:
    """Counts the forward passes of a module."""

    def __init__(self, module):
        self.count = 0
        module.register_forward_hook(self)

    def __call__(self, *_):
        self.count += 1


def test_embeddings_are_zero_at_padding_and_do_not_depend_on_it(task):
    model, tokens = build(task), task.tokenizer.encode(["a red square", "a blue circle moving up"])
    embeddings = model.embed(tokens)
    assert embeddings.shape == (2, 8, 12)
    assert embeddings[0, 4:].eq(0).all()
    assert embeddings[1, :6].ne(0).any(-1).all()
    torch.testing.assert_close(model.embed(tokens[:1, :4]), embeddings[:1, :4])
    with torch.no_grad():
        model.encoder.shared.weight[PAD] = 7.0
    assert torch.equal(model.embed(tokens), embeddings)


def test_the_empty_prompt_is_an_end(task):
    model = build(task)
    assert torch.equal(model.null_tokens(2), task.tokenizer.encode(["", ""]))
    assert model.null_tokens(1)[0, :2].tolist() == [END, PAD]


def test_the_outputs_are_the_velocities_of_the_parts(task):
    model, inputs = build(task), task.splits["train"][:5].inputs
    videos, times, tokens = inputs[:, :216].reshape(5, 3, 2, 6, 6), inputs[:, 216], inputs[:, 217:].long()
    velocity = model.velocity(videos, times, model.embed(tokens))
    assert velocity.shape == videos.shape
    assert torch.equal(model(inputs), velocity.flatten(1))
    assert not torch.equal(velocity, model.velocity(videos, times / 2, model.embed(tokens)))
    assert not torch.equal(velocity, model.velocity(videos, times, model.embed(tokens.flip(0))))


def test_training_mode_changes_nothing(task):
    model, inputs = build(task), task.splits["train"][:3].inputs
    assert torch.equal(model.train()(inputs), model.eval()(inputs))


def test_a_short_training_lowers_the_loss(task):
    model = build(task)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(12):
        for inputs, labels in task.batches(16, 0, epoch):
            optimizer.zero_grad()
            task.loss(model(inputs), labels).backward()
            optimizer.step()
    validation = task.splits["validation"][:]
    assert task.loss(model(validation.inputs), validation.labels) < 0.85 * task.baseline_loss


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"video_shape": (3, 2, 6)}, "video_shape is .3, 2, 6.; expected 4 numbers"),
        ({"patch_size": (1, 4, 4)}, "expected frames, height and width that are multiples"),
        ({"head_dim": 7}, "head_dim is 7; expected an even number"),
        ({"prompt_length": 0}, "prompt_length"),
    ],
)
def test_sizes_that_do_not_fit_are_errors(options, message, task):
    with pytest.raises(InvalidConfig, match=message):
        get_target_model("TextToVideo", task.model_facts, **SMALL | options)


def test_with_the_sizes_of_wan_it_has_the_names_and_shapes_of_wan():
    with torch.device("meta"):
        model = get_target_model(
            "TextToVideo", vocab_size=256_384, video_shape=(48, 21, 44, 80), patch_size=(1, 2, 2), num_layers=30,
            heads=24, head_dim=128, ffn_dim=14_336, freq_dim=256, text_dim=4096, text_layers=1, text_heads=64,
            text_head_dim=64, text_ffn_dim=10_240, prompt_length=512,
        )  # fmt: skip
    found = {name: tuple(tensor.shape) for name, tensor in model.transformer.state_dict().items()}
    assert found == TI2V_5B.of_diffusers()
    assert set(dict(model.named_children())) == {"encoder", "transformer"}


@pytest.mark.parametrize("cached", [False, True])
def test_losses_of_several_networks_on_batches_of_their_own(cached, task):
    models = [build(task, seed, cache_embeddings=cached) for seed in (1, 1)]
    layout, random = Layout.of(models[0]), generator(0)
    weights = torch.stack([layout.read(models[0]), layout.read(models[0]) * 1.01])
    batches = [task.sample("meta", 4, random) for _ in models]
    stacked = Batch(*(torch.stack(parts) for parts in zip(*batches, strict=True)))
    frozen = {name: each.detach() for name, each in models[0].named_parameters() if not each.requires_grad}
    losses = network_losses(models[1], layout.unflatten(weights), task.loss, stacked, constant=frozen)
    for model, flat, batch, loss in zip(models, weights, batches, losses, strict=True):
        layout.write(model, flat)
        torch.testing.assert_close(loss, task.loss(model(batch.inputs), batch.labels), rtol=1e-4, atol=1e-5)


def test_cached_embeddings_are_those_of_the_frozen_encoder(task):
    model, plain = build(task, cache_embeddings=True), build(task)
    assert not any(weights.requires_grad for weights in model.encoder.parameters())
    assert all(weights.requires_grad for weights in model.transformer.parameters())
    inputs = task.splits["train"][:].inputs
    torch.testing.assert_close(model(inputs), plain(inputs))
    assert not model.embed(model.null_tokens(2)).requires_grad


def test_each_prompt_is_encoded_once_in_all_processes(task, home):
    model, inputs = build(task, cache_embeddings=True), task.splits["train"][:].inputs
    calls, prompts = Calls(model.encoder), len(inputs[:, 217:].unique(dim=0))
    first, again = model(inputs), model(inputs.flip(0)).flip(0)
    assert calls.count == prompts == len(list(home.iterdir()))
    torch.testing.assert_close(first, again)
    other = build(task, cache_embeddings=True)
    calls = Calls(other.encoder)
    assert torch.equal(other(inputs), first)
    assert calls.count == 0


def test_another_encoder_never_uses_these_embeddings(task):
    model, other = build(task, cache_embeddings=True), build(task, seed=1, cache_embeddings=True)
    inputs = task.splits["train"][:4].inputs
    model(inputs), other(inputs)
    torch.testing.assert_close(other(inputs), build(task, seed=1)(inputs))
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(model(inputs), other(inputs))


def test_an_encoder_that_is_trainable_again_is_not_cached(task):
    model, tokens = build(task, cache_embeddings=True), task.tokenizer.encode(["a red square"])
    model.embed(tokens)
    model.encoder.shared.requires_grad_(True)
    assert model.embed(tokens).requires_grad


def test_weights_that_are_replaced_for_a_call_are_used(task):
    model, other = build(task, cache_embeddings=True), build(task, seed=1)
    inputs = task.splits["train"][:4].inputs
    model(inputs)
    weights = {name: tensor.detach() for name, tensor in other.named_parameters()}
    torch.testing.assert_close(functional_call(model, weights, (inputs,)), other(inputs))


def test_a_copy_has_a_table_of_its_own(task):
    model, inputs = build(task, cache_embeddings=True), task.splits["train"][:4].inputs
    before = model(inputs)
    clone = copy.deepcopy(model)
    with torch.no_grad():
        clone.encoder.shared.weight.mul_(2)
    assert not torch.equal(clone(inputs), before)
    assert torch.equal(model(inputs), before)


class Encoder:
    """Computes embeddings, and counts the prompts."""

    def __init__(self):
        self.prompts = 0

    def __call__(self, tokens):
        self.prompts += len(tokens)
        return tokens.unsqueeze(-1).float().expand(-1, -1, 2)


@pytest.mark.parametrize("damage", [lambda data: data[:50], lambda data: data[:-1] + b"!", lambda data: b""])
def test_damaged_embeddings_are_computed_again(damage, tmp_path, caplog):
    encode, tokens = Encoder(), torch.tensor([[1, 2, 0], [3, 0, 0], [1, 2, 0]])
    expected = EmbeddingCache("encoder", "words", tmp_path / "here").embeddings(tokens, encode)
    assert encode.prompts == 2
    assert expected[:, :, 0].tolist() == tokens.tolist()
    path = min((tmp_path / "here").iterdir())
    path.write_bytes(damage(path.read_bytes()))
    found = EmbeddingCache("encoder", "words", tmp_path / "here").embeddings(tokens, encode)
    assert torch.equal(found, expected)
    assert encode.prompts == 3
    assert "It is computed again" in caplog.text


@pytest.mark.parametrize(("encoder", "tokenizer", "other"), [("b", "words", "encoder"), ("a", "more", "tokenizer")])
def test_a_folder_of_another_encoder_or_tokenizer_is_an_error(encoder, tokenizer, other, tmp_path):
    EmbeddingCache("a", "words", tmp_path).embeddings(torch.tensor([[1, 0]]), Encoder())
    with pytest.raises(InvalidConfig, match=f"holds embeddings of another {other}.*choose another folder"):
        EmbeddingCache(encoder, tokenizer, tmp_path)
    EmbeddingCache("a", "words", tmp_path)


def test_the_common_folder_holds_embeddings_of_all_encoders(home):
    tokens = torch.tensor([[1, 0]])
    for number, owner in enumerate((("a", "words"), ("b", "words"), ("a", "more"))):
        EmbeddingCache(*owner).embeddings(tokens, lambda tokens, number=number: torch.full((1, 2, 1), float(number)))
    assert EmbeddingCache("b", "words").embeddings(tokens, Encoder())[0, 0].tolist() == [1]
    assert len(list(home.iterdir())) == 3


def test_the_digest_of_an_encoder_covers_each_weight(task):
    model = build(task)
    digest = encoder_digest(model.encoder)
    assert digest == encoder_digest(build(task).encoder)
    for weights in model.encoder.parameters():
        with torch.no_grad():
            weights.view(-1)[-1] += 1e-3
        assert encoder_digest(model.encoder) != digest
        digest = encoder_digest(model.encoder)


def test_a_sample_in_one_step_is_the_noise_minus_its_velocity(task):
    model, tokens = build(task), task.tokenizer.encode(PROMPTS[:3])
    noise = torch.randn(3, 3, 2, 6, 6, generator=generator(5))
    velocity = model.velocity(noise, torch.ones(3), model.embed(tokens))
    torch.testing.assert_close(sample(model, tokens, steps=1, seed=5), noise - velocity)
    unguided = model.velocity(noise, torch.ones(3), model.embed(model.null_tokens(3)))
    expected = noise - unguided - 3 * (velocity - unguided)
    torch.testing.assert_close(sample(model, tokens, steps=1, seed=5, guidance=3.0), expected)


class Straight(TextToVideo):
    """A network that knows its video: the velocity of x_t is (x_t - x_0) / t."""

    def velocity(self, videos, times, embeddings):
        return (videos - 0.5) / times.reshape(-1, 1, 1, 1, 1)


def test_samples_reach_the_video_and_depend_on_the_random_seed(task):
    model = Straight(TextToVideo.Config(video_shape=(3, 2, 6, 6)))
    assert torch.allclose(sample(model, model.null_tokens(2), steps=7), torch.tensor(0.5), atol=1e-5)
    model, tokens = build(task), task.tokenizer.encode(PROMPTS[:1] * 2)
    first, again, other = (sample(model, tokens, steps=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_a_chart_of_videos_shows_their_frames_and_prompts():
    videos = torch.full((3, 3, 2, 4, 5), -1.0)
    videos[0, 0, 1] = 1.0
    figure = video_chart("Samples", "of nothing", videos, PROMPTS[:3])
    images = [axes.images[0].get_array() for axes in figure.subfigs[1].axes if axes.images]
    assert [axes.get_title(loc="left") for axes in figure.subfigs[1].axes] == [*PROMPTS[:3], ""]
    assert [image.shape for image in images] == [(4, 11, 3)] * 3
    assert images[0][0, 0].tolist() == [0, 0, 0]
    assert images[0][0, 6].tolist() == [1, 0, 0]
    assert rendered(figure)["png"].startswith(b"\x89PNG")


def test_all_prompts_of_pictures_can_be_encoded(task):
    words = task.tokenizer.encode(PROMPTS)[:, 1:5]
    assert len(set(map(tuple, words.tolist()))) == len(PROMPTS) == 16
    assert prod(words[:, 0].unique(return_counts=True)[1].tolist()) == 4**4
