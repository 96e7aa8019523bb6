"""The task `captioned-shapes` without a network: captions, drawings, and the batches of flow matching."""

import pytest
import torch

from metaopt.core.errors import InvalidConfig, TaskDataError
from metaopt.core.rng import generator
from metaopt.diffusion import NEW_WORDS, Noisy, Scene, Tokenizer, draw_videos, flow_batch, nearest_scenes, unpack
from metaopt.diffusion.captions import COLOURS, DIRECTIONS, END, PAD, SCENES, SHAPES
from metaopt.diffusion.flow import draw_times
from metaopt.tasks import load_task

SMALL = {"examples": 120, "frames": 2, "size": 6}


def parts_of(task, batch):
    return unpack(batch.inputs, tuple(task.model_facts["video_shape"]))


def captions_of(task, batch):
    return task.tokenizer.decode(parts_of(task, batch).tokens)


def videos_of(task, batch):
    """x_0 = x_t - t v."""
    videos, times, _ = parts_of(task, batch)
    return videos - times.reshape(-1, 1, 1, 1, 1) * batch.labels.reshape(videos.shape)


def test_a_scene_in_old_and_in_new_words():
    scene = Scene(COLOURS.index("red"), SHAPES.index("square"), DIRECTIONS.index("left"))
    assert scene.caption() == "a red square moving left"
    assert scene.caption(new=(True, False, True)) == "a crimson square moving west"


def test_prompts_end_and_are_padded():
    tokenizer = Tokenizer(["red", "box"], length=4)
    assert tokenizer.encode(["box red", ""]).tolist() == [[3, 2, END, PAD], [END, PAD, PAD, PAD]]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            "a red sqare",
            "'sqare' of the prompt 'a red sqare' is not in the vocabulary of 26 words: did you mean square",
        ),
        ("a <pad>", "'<pad>' of the prompt"),
        ("a a a a a a a a", "has 8 words; expected at most 7"),
    ],
)
def test_a_prompt_that_cannot_be_encoded_is_an_error(prompt, message):
    with pytest.raises(InvalidConfig, match=message):
        Tokenizer().encode(["a", prompt])


def test_another_vocabulary_order_or_length_has_another_digest():
    digests = [Tokenizer(words, length).digest for words, length in (("ab", 4), ("ba", 4), ("abc", 4), ("ab", 5))]
    assert len({*digests, Tokenizer(("a", "b"), 4).digest}) == 4


@pytest.mark.parametrize("colour", range(4))
def test_a_shape_has_its_colour_on_black(colour):
    (video,) = draw_videos([Scene(colour, 0, 0)], 3, 12, generator(0))
    middle = video[:, 0, 6, 4]
    expected = {"red": [1, -1, -1], "green": [-1, 1, -1], "blue": [-1, -1, 1], "yellow": [1, 1, -1]}[COLOURS[colour]]
    assert middle.tolist() == expected
    assert video[:, :, 0, 0].eq(-1).all()
    assert video.abs().max() == 1


@pytest.mark.parametrize(("direction", "axis", "sign"), [(0, -1, -1), (1, -1, 1), (2, -2, -1), (3, -2, 1)])
def test_a_shape_moves_in_its_direction(direction, axis, sign):
    videos = draw_videos([scene for scene in SCENES if scene.direction == direction], 3, 12, generator(0))
    cover = (videos.max(1).values + 1) / 2  # [videos, frames, height, width]
    places = torch.arange(12.0).reshape([12, 1] if axis == -2 else [12])
    centres = (cover * places).sum((-1, -2)) / cover.sum((-1, -2))
    assert (sign * (centres[:, 2] - centres[:, 0]) > 1.5).all()


def test_shapes_differ_and_have_other_sizes_and_places_each_time():
    videos = draw_videos([Scene(0, shape, 1) for shape in (0, 1, 2, 3, 3)], 3, 12, generator(0))
    distances = torch.cdist(videos.flatten(1), videos.flatten(1)) + torch.eye(5) * 100
    assert distances.min() > 0.3


def test_drawing_is_a_function_of_the_random_seed():
    first, again, other = (draw_videos(SCENES, 2, 8, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_nearest_scene_is_that_of_a_drawing_also_with_noise():
    videos = draw_videos(SCENES, 3, 12, generator(7))
    assert nearest_scenes(videos + 0.3 * torch.randn(videos.shape)) == [*SCENES]


def test_flow_matching_is_a_straight_line_from_the_video_to_the_noise():
    videos, noise, times = torch.randn(3, 1, 2, 4, 4), torch.randn(3, 1, 2, 4, 4), torch.tensor([0.0, 0.25, 1.0])
    inputs, velocity = flow_batch(videos, torch.ones(3, 2, dtype=torch.long), times, noise)
    noisy = unpack(inputs, (1, 2, 4, 4))
    assert isinstance(noisy, Noisy)
    assert torch.equal(noisy.videos[0], videos[0])
    assert torch.equal(noisy.videos[2], noise[2])
    assert torch.allclose(noisy.videos[1], videos[1] + 0.25 * velocity[1].reshape(1, 2, 4, 4))
    assert torch.equal(velocity, (noise - videos).flatten(1))


def test_times_of_a_batch_cover_all_times():
    times = draw_times(8, generator(0))
    assert sorted((times * 8).int().tolist()) == list(range(8))
    assert times.tolist() != sorted(times.tolist())


@pytest.mark.parametrize("words", ["old", "new", "all"])
def test_captions_use_the_words_that_are_asked_for(words):
    old = load_task("captioned-shapes", **SMALL)
    task = load_task("captioned-shapes", **SMALL, words=words)
    captions = captions_of(task, task.splits["train"][:])
    used = {word for caption in captions for word in caption.split()} - {"a", "moving"}
    assert used == {"old": {*NEW_WORDS}, "new": {*NEW_WORDS.values()}, "all": {*NEW_WORDS, *NEW_WORDS.values()}}[words]
    old_of = {new: word for word, new in NEW_WORDS.items()}
    translated = [" ".join(old_of.get(word, word) for word in caption.split()) for caption in captions]
    assert translated == captions_of(old, old.splits["train"][:])


def test_words_change_captions_alone():
    old, new = (load_task("captioned-shapes", **SMALL, words=words).splits["meta"][:] for words in ("old", "new"))
    numbers = old.labels.shape[1]
    assert torch.equal(old.labels, new.labels)
    assert torch.equal(old.inputs[:, : numbers + 1], new.inputs[:, : numbers + 1])
    assert not torch.equal(old.inputs, new.inputs)


def test_captions_describe_their_videos():
    task = load_task("captioned-shapes", **SMALL)
    batch = task.splits["train"][:]
    brightness = videos_of(task, batch).amax((2, 3, 4)) > 0
    bright = {"red": [1, 0, 0], "green": [0, 1, 0], "blue": [0, 0, 1], "yellow": [1, 1, 0]}
    expected = [bright[caption.split()[1]] for caption in captions_of(task, batch)]
    assert brightness.int().tolist() == expected


def test_each_epoch_has_new_noise_and_times_for_the_same_videos():
    task = load_task("captioned-shapes", **SMALL, empty=0.0)
    (first,), (second,) = (list(task.batches(100, seed=0, epoch=epoch)) for epoch in (0, 1))
    assert not set(map(tuple, first.labels.tolist())) & set(map(tuple, second.labels.tolist()))
    clean = [sorted((videos_of(task, batch) * 1000).round().flatten(1).tolist()) for batch in (first, second)]
    assert clean[0] == clean[1]
    assert sorted(captions_of(task, first)) == sorted(captions_of(task, second))


def test_some_captions_of_training_batches_are_empty():
    task = load_task("captioned-shapes", **SMALL, empty=0.5)
    captions = [caption for batch in task.batches(16, 0, 0) for caption in captions_of(task, batch)]
    assert 0.3 < captions.count("") / len(captions) < 0.7
    assert "" not in captions_of(task, task.splits["validation"][:])


def test_equal_configurations_have_equal_splits():
    first, again, other = (load_task("captioned-shapes", **SMALL, split_seed=seed).digest() for seed in (0, 0, 1))
    assert first == again != other


def test_too_few_examples_are_an_error():
    with pytest.raises(TaskDataError, match="too few to divide"):
        load_task("captioned-shapes", examples=40, guard_fraction=0.01)


def test_r2_is_zero_at_the_baseline_loss():
    task = load_task("captioned-shapes", **SMALL)
    assert task.metrics_of_loss(task.baseline_loss) == {"r2": 0}


def test_times_are_drawn_from_a_band():
    task = load_task("captioned-shapes", **SMALL, t_min=0.5, t_max=0.875)
    batches = [task.splits["validation"][:], *task.batches(16, seed=0, epoch=0)]
    times = torch.cat([parts_of(task, batch).times for batch in batches])
    assert 0.5 <= times.min() < 0.55
    assert 0.83 < times.max() <= 0.875
    with pytest.raises(InvalidConfig, match=r"t_min is 0.9 and t_max 0.5; expected a smaller t_min"):
        load_task("captioned-shapes", **SMALL, t_min=0.9, t_max=0.5)
