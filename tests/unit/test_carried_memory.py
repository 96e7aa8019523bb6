"""Memories that are carried from batch to batch: pieces equal the whole, and the network stays an ordinary one."""

import copy
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from metaopt.core.devices import CPU
from metaopt.core.errors import CheckpointError, InvalidConfig
from metaopt.core.tracker import SilentTracker
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.paired_runs import RunSetup, train_contender
from metaopt.generative import get_optimizer_model
from metaopt.nested import Hope, HopeBlock, HopeConfig
from metaopt.nested.carried_memory import carried_memories, load_carried_memories
from metaopt.nested.hope_memory import memory_layer
from metaopt.nowcast import Nowcast
from metaopt.optimizers import optimizer_for
from metaopt.recording.record import TrainTargetConfig, prepared_recording, train_targets
from metaopt.recording.state import TargetTrainingState
from metaopt.recording.training import take_step
from metaopt.tasks import load_task
from metaopt.tasks.measure import measure
from metaopt.trajectories import Trajectory
from metaopt.trajectories.checkpoint import load_checkpoint, save_checkpoint

SIZES = {"n_layer": 1, "n_head": 2, "n_embd": 8, "periods": (1, 2), "chunk": 4}
MEMORIES = ["linear", "titan", "self"]


def build(memory="self", carry=True, **options):
    torch.manual_seed(0)
    model = Hope(
        HopeConfig(**{"vocab_size": 11, "block_size": 8, "memory": memory, "carry_memory": carry, **SIZES, **options})
    )
    for block in model.blocks:
        torch.nn.init.normal_(block.memory_out.weight, std=0.05)  # else no memory changes an output at first
    return model


def tokens(count=3, length=8, seed=1):
    return torch.randint(11, (count, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", MEMORIES)
def test_batches_of_a_stream_equal_the_whole_stream(kind):
    torch.manual_seed(0)
    layer = memory_layer(kind, 8, 2, 4)
    inputs = torch.randn(3, 24, 8)
    whole = layer(inputs)
    layer.carry()
    pieces = [layer(part, write=True) for part in inputs.split(8, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    assert not torch.allclose(layer(inputs[:, 8:16]), layer.eval()(inputs[:, 8:16])), "in evaluation it begins anew"


@pytest.mark.parametrize("kind", MEMORIES)
def test_a_memory_is_its_trained_start_plus_what_a_sequence_has_written(kind):
    layer = memory_layer(kind, 8, 2, 4)
    layer.carry()
    inputs = torch.randn(3, 8, 8)
    layer(inputs, write=True)
    changes = carried_memories(layer)
    assert all(len(change) == 3 and not change.requires_grad for change in changes.values())
    assert any(change.any() for change in changes.values())
    with torch.no_grad():
        for weights in layer.parameters():
            weights += 0.1
    for start, initial, change in zip(layer.start(3), layer.initial(3), changes.values(), strict=True):
        torch.testing.assert_close(start, initial + change)
    layer(inputs).square().sum().backward()
    if kind != "linear":  # whose initial memory is zero
        assert all(weights.grad.any() for weights in layer.memory.initial.parameters())


def test_a_forward_pass_does_not_change_what_is_carried():
    model = build()
    model.write_memories(tokens())
    before = copy.deepcopy(carried_memories(model))
    model(tokens(seed=2))
    model.eval()(tokens(seed=3))
    model.surprises(tokens())
    assert all(map(torch.equal, before.values(), carried_memories(model).values()))


@pytest.mark.parametrize("memory", ["linear", "self"])  # titan writes by a backward pass
def test_neither_writes_nor_update_norms_wait_for_a_device(memory):
    """A fake tensor has no values, so that the host cannot read one, and it refuses to mix devices."""
    with FakeTensorMode(), torch.device("cuda"):
        model, inputs = build(memory), torch.zeros(3, 8, dtype=torch.long)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        levels = model.learning_levels()
        levels.attach(optimizer)
        levels.observe()
        for _ in range(2):
            for weights in model.parameters():  # without a GPU there is no backward pass
                weights.grad = torch.ones_like(weights)
            optimizer.step()
            model.write_memories(inputs)
        assert model(inputs).device.type == "cuda"
        assert {value.device.type for value in carried_memories(model).values()} == {"cuda"}


def test_another_number_of_sequences_begins_anew():
    model, fresh = build(), build()
    model.write_memories(tokens())
    assert torch.equal(model(tokens(2)), fresh(tokens(2)))
    assert not torch.equal(model(tokens(3)), fresh(tokens(3)))
    model.write_memories(tokens(2))
    fresh.write_memories(tokens(2))
    assert torch.equal(model(tokens(2)), fresh(tokens(2)))


def test_what_is_carried_is_in_no_state_dict_and_costs_nothing_without_the_option():
    assert build().state_dict().keys() == build(carry=False).state_dict().keys()
    model = build(carry=False)
    model.write_memories(tokens())
    assert carried_memories(model) == {}
    model.train()
    assert torch.equal(model(tokens()), build(carry=True)(tokens())), "the first batch of a stream begins anew"


def test_a_block_takes_any_layer_as_its_memory():
    block = HopeBlock(8, 2, HopeConfig(**SIZES).levels, memory=torch.nn.Linear(8, 8))
    assert torch.equal(block(inputs := torch.randn(2, 5, 8)), block(inputs, write=True))
    assert block.surprise(inputs) is None


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog. " * 20, encoding="utf-8")
    return path


def load(text, order="stream", block_size=8):
    return load_task("text", data_dir=text, block_size=block_size, tokenizer="characters", order=order)


def test_writes_use_the_updated_weights(text):
    """Phase one is the optimizer's step; phase two writes the same batch, with the weights after it."""
    task = load(text)
    model = build(vocab_size=task.model_facts["vocab_size"])
    optimizer = optimizer_for(model, "SGD", 0.5, {})
    batch = next(task.batches(4, 0, 0))
    take_step(model, optimizer, task, batch)
    again = copy.deepcopy(model)
    load_carried_memories(again, {name: value[:0] for name, value in carried_memories(model).items()})
    again.write_memories(batch.inputs)
    assert all(map(torch.equal, carried_memories(model).values(), carried_memories(again).values()))


@pytest.mark.parametrize("batch_size", [1, 4, 7, 10_000])
def test_rows_of_a_stream_continue_each_other_also_in_the_next_epoch(tmp_path, batch_size):
    path = tmp_path / "numbers.txt"
    path.write_text("".join(f"{number:04d}" for number in range(300)), encoding="utf-8")
    task = load(path)  # two numbers in each block
    blocks, last = len(task.splits["train"]), None
    for epoch in range(3):
        batches = list(task.batches(batch_size, seed=epoch, epoch=epoch))
        assert len(batches) == -(-blocks // batch_size)
        read = set()
        for row in range(min(batch_size, blocks)):
            digits = task.decode(torch.cat([batch.inputs[row] for batch in batches]))
            numbers = [int(digits[start : start + 4]) for start in range(0, len(digits), 4)]
            assert numbers == list(range(numbers[0], numbers[0] + 2 * len(batches)))
            read.update(numbers)
            if row == 0:
                assert last is None or numbers[0] in (last + 1, last - 1, 0), "the next block, or the last one again"
                last = numbers[-1]
        assert read == set(range(2 * blocks))


def test_a_shuffled_task_has_the_batches_of_before(text):
    shuffled = load(text, "shuffled")
    default = load_task("text", data_dir=text, block_size=8, tokenizer="characters")
    for one, other in zip(shuffled.batches(4, 3, 1), default.batches(4, 3, 1), strict=True):
        assert torch.equal(one.inputs, other.inputs)
    assert shuffled.digest() == load(text).digest()


@pytest.fixture
def config(tmp_path, text):
    return TrainTargetConfig(
        run_name="hope",
        task="text",
        task_options={"block_size": 8, "tokenizer": "characters", "order": "stream"},
        data_dir=text,
        target_model="Hope",
        target_options={**SIZES, "carry_memory": True},
        batch_size=14,
        epochs=2,
        trajectory_dir=tmp_path / "trajectories",
        checkpoint_dir=tmp_path / "checkpoints",
    )


def state_of(config):
    return TargetTrainingState.from_config(config, config.load_task(), CPU)


def epoch(state):
    for step in state.epoch_steps():
        state.after_step(step.take())


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_resumed_stream_gives_the_same_bits(config, tmp_path, memory):
    config = replace(config, target_options={**config.target_options, "memory": memory})
    whole, path = state_of(config), tmp_path / "checkpoint.safetensors"
    epoch(whole)
    whole.save(path, {})
    resumed = state_of(config)
    resumed.load(path, {})
    for state in (whole, resumed):
        epoch(state)
    assert torch.equal(whole.layout.read(whole.model), resumed.layout.read(resumed.model))
    forgotten = state_of(config)
    forgotten.load(path, {})
    load_carried_memories(forgotten.model, {k: v[:0] for k, v in carried_memories(forgotten.model).items()})
    epoch(forgotten)
    assert not torch.equal(whole.layout.read(whole.model), forgotten.layout.read(forgotten.model))


@pytest.mark.parametrize("memory", ["linear", "self"])
def test_batched_streams_equal_single_ones(config, memory):
    config = replace(config, runs=2, epochs=1, target_options={**config.target_options, "memory": memory})
    alone = train_targets(replace(config, run_name="alone"), SilentTracker())
    together = train_targets(replace(config, run_name="together", vectorize=2), SilentTracker())
    for one, other in zip(map(Trajectory.open, alone), map(Trajectory.open, together), strict=True):
        torch.testing.assert_close(one.weights(-1), other.weights(-1), rtol=1e-4, atol=1e-5)


def test_evaluations_and_guards_change_no_bit_of_a_training(text):
    task = load(text)

    def train(is_watched):
        model = build(vocab_size=task.model_facts["vocab_size"])
        optimizer = optimizer_for(model, "SGD", 0.1, {})
        if is_watched:
            losses = iter(range(1000))  # a forecast is never better
            guard = lambda: model(tokens(4)).mean() * 0 + next(losses)  # noqa: E731
            optimizer = Nowcast(
                optimizer, model, get_optimizer_model("Line"), every=3, stride=1, guard=guard, max_overhead=None
            )
        for batch in list(task.batches(4, 0, 0))[:8]:
            take_step(model, optimizer, task, batch)
            if is_watched:
                measure(model, task, [batch])
        return [*model.parameters(), *carried_memories(model).values()]

    assert all(map(torch.equal, train(is_watched=True), train(is_watched=False)))


def test_an_evaluation_trains_on_the_stream(text):
    task = load(text)
    settings = {"task": "text", "target_model": "Hope", "target_options": {**SIZES, "carry_memory": True}}
    setup = RunSetup(
        EvaluateConfig(**settings, steps=8, every=4, stride=2, evaluate_every=4, batch_size=8), task, seed=0
    )
    assert train_contender(setup, "hold").points[-1].loss > 0


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.popitem(),
        lambda state: state.update({next(iter(state)): torch.zeros(3, 1)}),
        lambda state: state.update({next(iter(state)): next(iter(state.values()))[:1]}),
        lambda state: next(iter(state.values())).fill_(torch.nan),
    ],
)
def test_a_damaged_state_is_refused(change):
    model = build()
    model.write_memories(tokens())
    state = copy.deepcopy(carried_memories(model))
    load_carried_memories(model, state)
    change(state)
    with pytest.raises(CheckpointError, match=r"carried memor(y|ies)"):
        load_carried_memories(model, state)


def test_a_network_that_carries_memories_needs_a_stream(config):
    shuffled = replace(config, task_options={**config.task_options, "order": "shuffled"})
    with pytest.raises(InvalidConfig, match="Set order=stream"), prepared_recording(shuffled):
        pass
    assert not config.trajectory_dir.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "none"}, "carry_memory needs a memory"),
        ({"carry": False, "chunk": 8, "memory": "linear"}, "a memory linear would never be read"),
    ],
)
def test_invalid_options(options, message):
    with pytest.raises(InvalidConfig, match=message):
        build(**options)


def test_a_chunk_may_be_a_whole_batch_of_a_stream(caplog):
    build(chunk=8).write_memories(tokens())
    build(carry=False, chunk=8, self_modifying=False)(tokens())
    assert not caplog.records
    for _ in range(2):
        build(carry=False, chunk=8, block_size=7)
    (warning,) = caplog.records
    assert "chunk is 8 and block_size 7: keys, values and rates of the memory never adapt" in warning.message


def test_a_checkpoint_from_before_an_option_of_the_task_is_resumed(config, tmp_path):
    options = {"block_size": 8, "tokenizer": "characters"}
    config = replace(config, task_options=options, target_model="GPT", target_options={"n_layer": 1, "n_embd": 8})
    state, path = state_of(config), tmp_path / "checkpoint.safetensors"
    state.save(path, {})
    stored, facts = load_checkpoint(path)
    del facts["run"]["task_config"]["order"], stored["carried_memories"]
    save_checkpoint(path, stored, facts)
    state_of(config).load(path, {})
    with pytest.raises(CheckpointError, match="order"):
        state_of(replace(config, task_options={**options, "order": "stream"})).load(path, {})
