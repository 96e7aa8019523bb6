"""HOPE: sizes, ablations, states per sequence, and levels that recordings and nowcasts respect."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from benchmarks.nested.hope_against_gpt import NETWORKS, main, sized, weights_of
from metaopt.core.devices import CPU
from metaopt.core.errors import CheckpointError, InvalidConfig, LayoutMismatch
from metaopt.core.tracker import SilentTracker
from metaopt.evaluation.baselines import TRAINED_BASELINES
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.paired_runs import RunSetup
from metaopt.generative import get_optimizer_model
from metaopt.nested import Hope, HopeBlock, HopeConfig, memory_layer
from metaopt.nested.hope_block import CausalConvolution, WindowedAttention
from metaopt.nowcast import Nowcast
from metaopt.optimizers import optimizer_for
from metaopt.optimizers.state import check_optimizer_state
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.recording.state import TargetTrainingState
from metaopt.tasks import load_task
from metaopt.trajectories import Trajectory

SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 8, "periods": (1, 3)}


def build(seed=0, **options):
    torch.manual_seed(seed)
    model = Hope(HopeConfig(**{"vocab_size": 11, "block_size": 16, "chunk": 4, **SMALL, **options}))
    return with_used_memories(model)


def with_used_memories(model):
    """At first no memory changes an output; after a step of training each does."""
    for block in model.blocks:
        if block.memory_out is not None:
            torch.nn.init.normal_(block.memory_out.weight, std=0.05)
    return model


@pytest.mark.parametrize("memory", ["linear", "titan", "self"])
def test_a_memory_changes_no_output_before_the_first_step_of_training(memory):
    model = Hope(HopeConfig(vocab_size=11, block_size=16, chunk=4, memory=memory, **SMALL))
    before = model(tokens())
    for parameter in model.blocks[0].memory.parameters():
        torch.nn.init.normal_(parameter)
    torch.testing.assert_close(model(tokens()), before, rtol=0, atol=0)
    with_used_memories(model)
    assert not model(tokens()).allclose(before, atol=1e-4)


def tokens(count=3, length=16):
    return torch.randint(11, (count, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("preset", "millions"), [("tiny", 1.08), ("pilot-120m", 120), ("760m", 760)])
def test_the_sizes_of_presets(preset, millions):
    vocab_size = 256 if preset == "tiny" else 32_000
    with torch.device("meta"):
        model = Hope(HopeConfig(preset=preset, vocab_size=vocab_size, block_size=1024))
    assert sum(weights.numel() for weights in model.parameters()) == pytest.approx(1e6 * millions, rel=0.05)


def test_a_size_that_is_given_replaces_that_of_the_preset():
    config = HopeConfig(preset="pilot-120m", n_layer=2)
    assert (config.n_layer, config.n_head, config.n_embd, config.hidden) == (2, 12, 768, 768)
    assert HopeConfig.from_mapping(config.to_mapping()) == config


ABLATIONS = [
    {"memory": "none"},
    {"memory": "none", "window": 3},
    {"memory": "linear"},
    {"memory": "linear", "momentum": False, "decay": False},
    {"memory": "titan"},
    {"memory": "titan", "momentum": False, "decay": False},
    {"self_modifying": False},
    {"cms": False},
    {"variant": "headwise"},
    {"window": 3},
]


@pytest.mark.parametrize("options", ABLATIONS, ids=str)
def test_every_ablation_trains_all_its_weights_and_treats_each_sequence_alone(options):
    model = build(**options)
    outputs = model(tokens())
    outputs.square().mean().backward()
    assert all(weights.grad is not None and weights.grad.isfinite().all() for weights in model.parameters())
    alone = torch.cat([model(sequence[None]) for sequence in tokens()])
    torch.testing.assert_close(outputs, alone)
    ablated, full = (sum(weights.numel() for weights in each.parameters()) for each in (model, build()))
    assert options.get("cms", True) or abs(ablated / full - 1) < 0.05, "one MLP has the size of all levels together"


@pytest.mark.parametrize("memory", ["linear", "titan", "self"])
def test_a_memory_lets_tokens_read_what_was_written_beyond_the_window(memory):
    """With windows and convolutions that reach 8 tokens back in two blocks, only memories see the first one."""
    model = build(memory=memory, window=1)
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.5)
    changed = tokens()
    changed[:, 0] = (changed[:, 0] + 1) % 11
    assert not torch.equal(model(tokens())[:, -1], model(changed)[:, -1])
    model = build(memory="none", window=1)
    assert torch.equal(model(tokens())[:, -1], model(changed)[:, -1])


def test_a_convolution_begins_as_the_identity_and_mixes_four_tokens():
    layer, stream = CausalConvolution(3), torch.randn(2, 6, 3)
    assert torch.equal(layer(stream), stream)
    torch.nn.init.normal_(layer.kernel)
    expected = torch.nn.functional.conv1d(
        torch.nn.functional.pad(stream.mT, (3, 0)), layer.kernel.flip(0).T.unsqueeze(1), groups=3
    ).mT
    torch.testing.assert_close(layer(stream), expected)


def test_a_window_as_long_as_the_sequence_is_full_attention():
    attention, stream = WindowedAttention(8, 2, None), torch.randn(2, 6, 8)
    full = attention(stream)
    attention.window = 7
    assert torch.equal(attention(stream), full)
    attention.window = 5
    windowed = attention(stream)
    torch.testing.assert_close(windowed[:, :5], full[:, :5])
    assert not torch.allclose(windowed[:, 5], full[:, 5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_embd": 9}, "n_embd is 9; expected a multiple of n_head, 2"),
        ({"periods": ()}, "periods is empty"),
        ({"periods": (1, 0)}, "expected 1 or more"),
        ({"periods": (2, 3), "variant": "nested"}, "expected multiples, fastest first"),
        ({"variant": "parallel"}, "variant is 'parallel'"),
        ({"memory": "titan", "chunk": 16}, "would never be read"),
        ({"memory": "lstm"}, "memory is 'lstm'"),
        ({"decay": False}, "always decays"),
        ({"preset": "1b"}, "preset is '1b'"),
    ],
)
def test_invalid_options(options, message):
    with pytest.raises(InvalidConfig, match=message):
        build(**options)


def test_more_tokens_than_the_context():
    with pytest.raises(InvalidConfig, match="17 tokens came; expected from 1 to block_size, 16"):
        build()(tokens(length=17))


def test_no_sequences_have_no_surprise():
    with pytest.raises(InvalidConfig, match=r"tokens of shape \(0, 8\); expected at least one sequence"):
        build().surprises(tokens()[:0, :8])


def test_it_compiles_into_one_graph():
    model = build(n_layer=1)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    inputs = tokens(length=8)  # two chunks
    torch.testing.assert_close(compiled(inputs), model(inputs))


def train(model, optimizer, steps):
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        model(torch.randint(11, (3, 16), generator=generator)).square().mean().backward()
        optimizer.step()


def test_each_level_of_all_blocks_moves_when_it_is_due():
    model = build()
    optimizer = optimizer_for(model, "Adam", 1e-2, {})
    for step in range(6):
        before = {name: weights.clone() for name, weights in model.named_parameters()}
        train(model, optimizer, [step])
        unmoved = {name for name, weights in model.named_parameters() if torch.equal(weights, before[name])}
        slow = {name for name in before if ".cms.blocks.1." in name}
        assert slow
        assert unmoved == (slow if (step + 1) % 3 else set())


def test_a_nested_variant_begins_as_the_sequential_one_and_starts_again_from_what_the_slow_level_learns():
    model = build(variant="nested", memory="none")
    optimizer = optimizer_for(model, "Adam", 1e-2, {})
    changes = [weights for block in model.blocks for weights in block.cms.changes.parameters()]
    assert changes
    assert not any(weights.any() for weights in changes)
    train(model, optimizer, range(2))
    assert all(weights.any() for weights in changes)
    train(model, optimizer, [2])
    assert not any(weights.any() for weights in changes)


@pytest.mark.parametrize("variant", ["nested", "headwise"])
def test_variants_are_recorded_and_batched(config, variant):
    options = {**config.target_options, "n_layer": 1, "memory": "none", "variant": variant}
    config = replace(config, runs=2, epochs=1, target_options=options)
    alone = train_targets(replace(config, run_name="alone"), SilentTracker())
    together = train_targets(replace(config, run_name="together", vectorize=2), SilentTracker())
    for one, other in zip(map(Trajectory.open, alone), map(Trajectory.open, together), strict=True):
        torch.testing.assert_close(one.weights(-1), other.weights(-1), rtol=1e-4, atol=1e-5)


def test_frozen_weights_are_in_no_level():
    model = build()
    for name, weights in model.named_parameters():
        weights.requires_grad_("cms" not in name)
    train(model, optimizer_for(model, "Adam", 1e-2, {}), range(3))


def test_a_nowcast_continues_from_a_state_between_two_updates_of_a_level():
    def start():
        model = build()
        base = optimizer_for(model, "Adam", 1e-2, {})
        return model, Nowcast(
            base, model, get_optimizer_model("Line"), every=4, stride=2, horizons=2, max_overhead=None
        )

    model, optimizer = start()
    train(model, optimizer, range(5))
    weights, state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    train(model, optimizer, range(5, 12))
    resumed, again = start()
    resumed.load_state_dict(weights)
    again.load_state_dict(state)
    train(resumed, again, range(5, 12))
    assert len(again.events) == 3
    assert all(map(torch.equal, model.parameters(), resumed.parameters()))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog. " * 60, encoding="utf-8")
    return path


@pytest.fixture
def config(tmp_path, text):
    return TrainTargetConfig(
        run_name="hope",
        task="text",
        task_options={"block_size": 16, "tokenizer": "characters"},
        data_dir=text,
        target_model="Hope",
        target_options={**SMALL, "chunk": 4},
        batch_size=32,
        epochs=2,
        snapshot_every=2,
        trajectory_dir=tmp_path / "trajectories",
        checkpoint_dir=tmp_path / "checkpoints",
    )


def state_of(config):
    return TargetTrainingState.from_config(config, config.load_task(), CPU)


def test_a_recording_respects_levels(config):
    (folder,) = train_targets(config, SilentTracker())
    trajectory = Trajectory.open(folder)
    first, second = (trajectory.weights(index) for index in (0, 1))
    before, after = (trajectory.layout.unflatten(weights) for weights in (first, second))
    unmoved = {name for name in before if torch.equal(before[name], after[name])}
    assert list(trajectory.steps[:2]) == [0, 2]
    assert unmoved == {name for name in before if ".cms.blocks.1." in name}


def test_batched_recordings_equal_single_ones(config):
    config = replace(config, runs=2, epochs=1)
    alone = train_targets(replace(config, run_name="alone"), SilentTracker())
    together = train_targets(replace(config, run_name="together", vectorize=2), SilentTracker())
    for one, other in zip(map(Trajectory.open, alone), map(Trajectory.open, together), strict=True):
        torch.testing.assert_close(one.weights(-1), other.weights(-1), rtol=1e-4, atol=1e-5)


def test_a_checkpoint_between_two_updates_resumes_to_the_same_bits(config, tmp_path):
    whole, path = state_of(config), tmp_path / "checkpoint.safetensors"
    _epoch(whole)
    assert whole.step % 3, "a level has gradients from steps before the checkpoint"
    whole.save(path, {})
    resumed = state_of(config)
    resumed.load(path, {})
    for state in (whole, resumed):
        _epoch(state)
    assert torch.equal(whole.layout.read(whole.model), resumed.layout.read(resumed.model))


def _epoch(state):
    for step in state.epoch_steps():
        state.after_step(step.take())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("levels"), "without levels"),
        (lambda state: state["levels"]["clock"]["levels"].pop(), "a clock of the levels"),
        (lambda state: state["levels"]["clock"].update(step=-1), "a clock at step -1"),
        (lambda state: state["levels"]["sums"].pop("level 2"), "damaged state of levels"),
        (lambda state: state["levels"]["sums"]["level 2"].append(None), "damaged state of levels"),
        (lambda state: state["levels"]["sums"]["level 2"].__setitem__(0, torch.ones(2)), "of shape"),
        (lambda state: state["levels"]["sums"]["level 2"].__setitem__(0, torch.full((8,), torch.nan)), "finite"),
        (lambda state: state["levels"]["sums"]["level 2"].__setitem__(0, "x"), "damaged state of levels"),
    ],
)
def test_a_state_of_other_levels_is_refused(change, message):
    model = build()
    optimizer = optimizer_for(model, "Adam", 1e-2, {})
    train(model, optimizer, range(2))
    state = optimizer.state_dict()
    check_optimizer_state(optimizer, state)
    change(state)
    with pytest.raises(CheckpointError, match=message):
        check_optimizer_state(optimizer, state)


def test_a_state_with_levels_is_refused_by_a_network_without():
    model = build()
    state = optimizer_for(model, "Adam", 1e-2, {}).state_dict()
    with pytest.raises(CheckpointError, match="with levels"):
        check_optimizer_state(torch.optim.Adam(model.parameters(), lr=1e-2), state)


def test_paired_runs_respect_levels(config, text):
    task = load_task("text", data_dir=text, **config.task_options)
    evaluation = EvaluateConfig(task="text", target_model="Hope", target_options=config.target_options)
    setup = RunSetup(evaluation, task, seed=0)
    for build in (RunSetup.base_optimizer, *TRAINED_BASELINES.values()):
        assert "levels" in build(setup, setup.build()).state_dict()


@pytest.mark.parametrize(
    ("heads", "window"), [(3, None), (0, None), (2.0, None), (2, 0), (2, "all")], ids=lambda value: str(value)
)
def test_a_block_of_invalid_sizes_is_refused(heads, window):
    with pytest.raises(InvalidConfig, match="expected integers of 1 or more, heads that divide the width"):
        HopeBlock(8, heads, HopeConfig(**SMALL).levels, window=window)


@pytest.mark.parametrize("shape", [(2, 5, 7), (5, 8)])
def test_a_stream_of_another_width_is_refused(shape):
    with pytest.raises(LayoutMismatch, match=r"expected \[batch, tokens, 8\]"):
        HopeBlock(8, 2, HopeConfig(**SMALL).levels)(torch.zeros(shape))


@pytest.mark.parametrize("memory", ["linear", "titan", "self"])
@pytest.mark.parametrize("sizes", [(8, 3, 4), (8, 0, 4), (8, 2, 0), (0, 1, 4), (8, 2, "4")], ids=str)
def test_a_memory_of_invalid_sizes_is_refused(memory, sizes):
    with pytest.raises(InvalidConfig, match="expected integers of 1 or more, heads that divide the width"):
        memory_layer(memory, *sizes)


def test_a_block_without_memory_has_no_layer_for_it():
    block = HopeBlock(8, 2, HopeConfig(**SMALL).levels)
    assert not [name for name, _ in block.named_parameters() if "memory" in name]


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_the_comparison_with_a_gpt_has_equal_sizes(options):
    shape = {"vocab_size": 65, "block_size": 64, "n_layer": 2, "n_head": 4, "n_embd": 64}
    gpt = weights_of("GPT", shape)
    assert weights_of("Hope", sized({**shape, **options}, gpt)) == pytest.approx(gpt, rel=0.05)


def test_the_comparison_with_a_gpt_runs(text, tmp_path):
    output = tmp_path / "result.json"
    sizes = ["--layers", 1, "--width", 8, "--networks", "no memory"]
    flags = ["--text", text, "--steps", 2, "--seeds", 2, "--lrs", "0.01", *sizes, "--output", output]
    result = CliRunner().invoke(main, list(map(str, flags)))
    assert result.exit_code == 0, result.output
    gpt, hope = json.loads(output.read_text())["rows"]
    assert gpt["over GPT"] == pytest.approx(1.0)
    assert hope["network"] == "no memory"
