"""Nowcasts inside the trainers of other libraries: the real ones, small networks, a few steps on the CPU."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from metaopt.core.errors import InvalidConfig
from metaopt.generative import get_optimizer_model
from metaopt.nowcast import guard_from, reestimate_batchnorm

from ..small_training import QUIET, Rows, same_state

pytestmark = pytest.mark.filterwarnings("ignore")  # those libraries warn of many things


class Network(nn.Module):
    def __init__(self, dropout=0.1):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))

    def forward(self, inputs, labels=None):
        logits = self.layers(inputs)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


OPTIONS = {"every": 8, "stride": 4, "ema": 0.9, "horizons": [8, 16], "max_overhead": None}


def recorder():
    """A layer that notes whether it trains, and the precision of its inputs; and what it has noted, also in copies."""
    noted = set()

    class Recorder(nn.Module):
        def forward(self, values):
            noted.add((self.training, values.dtype))
            return values

    return Recorder(), noted


IN_BFLOAT16 = {(True, torch.bfloat16), (False, torch.bfloat16)}
LOSSES = {"compute_loss": lambda model, batch: getattr(model, "network", model)(**batch)["loss"]}
GUARDS = {"its own": {}, "guard_from": {"guard": guard_from(Rows(1), **LOSSES)}}


def hugging_face(folder, steps=24, bf16=False, **options):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from metaopt.nowcast.integrations.huggingface import add_nowcast

    arguments = transformers.TrainingArguments(
        str(folder),
        max_steps=steps,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        gradient_accumulation_steps=2,
        learning_rate=0.01,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=3,
        save_steps=12,
        report_to=[],
        use_cpu=True,
        bf16=bf16,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = transformers.Trainer(Network(), arguments, train_dataset=Rows(0, 96), eval_dataset=Rows(1))
    add_nowcast(trainer, get_optimizer_model("Line"), **{**OPTIONS, **options})
    return trainer


def test_hugging_face_trainer_nowcasts_and_resumes_from_its_own_checkpoint(tmp_path):
    whole = hugging_face(tmp_path / "one")
    whole.train()
    nowcast = whole.optimizer.optimizer
    assert nowcast.steps == 24
    assert [event.step for event in nowcast.events] == [8, 16, 24]
    assert all(event.loss_before is not None for event in nowcast.events)
    loaders = [reference for reference in whole.accelerator.gradient_state.dataloader_references if reference]
    assert all(len(loader.dataset) == 87 for loader in loaders)  # the guard's look left none of its own open
    resumed = hugging_face(tmp_path / "one")
    resumed.train(resume_from_checkpoint=str(tmp_path / "one" / "checkpoint-12"))
    assert resumed.optimizer.optimizer.events == nowcast.events
    assert same_state(resumed.model, whole.model)


@pytest.mark.parametrize("guard", GUARDS)
def test_hugging_face_guards_in_the_precision_of_the_training(tmp_path, guard):
    trainer = hugging_face(tmp_path, steps=8, bf16=True, **GUARDS[guard])
    trainer.model.layers[2], noted = recorder()
    trainer.train()
    assert len(trainer.optimizer.optimizer.events) == 1
    assert noted == IN_BFLOAT16


def test_hugging_face_without_held_out_data_is_told_what_to_give(tmp_path):
    trainer = hugging_face(tmp_path)
    trainer.eval_dataset = None
    from metaopt.nowcast.integrations.huggingface import add_nowcast

    with pytest.raises(InvalidConfig, match="no eval_dataset: there is no held-out data to guard nowcasts with"):
        add_nowcast(trainer, get_optimizer_model("Line"), guard_data="evaluation")
    with pytest.raises(InvalidConfig, match="guard_data is 'validation'; expected a data set, 'evaluation', or None"):
        add_nowcast(trainer, get_optimizer_model("Line"), guard_data="validation")
    trainer.train_dataset = Rows(0, 12)
    with pytest.raises(InvalidConfig, match="no eval_dataset: there is no held-out data to guard nowcasts with"):
        add_nowcast(trainer, get_optimizer_model("Line"))


def examples_of(dataset):
    return {tuple(dataset[row]["inputs"].tolist()) for row in range(len(dataset))}


def test_hugging_face_guards_with_examples_that_it_does_not_train_on(tmp_path, caplog):
    trainer = hugging_face(tmp_path, steps=8)
    assert "the guard of nowcasts uses 9 of the 96 training examples" in caplog.text
    seen = set()
    compute_loss = type(trainer).compute_loss

    def noted(self, model, inputs, *arguments, **keywords):
        rows = set(map(tuple, inputs["inputs"].tolist()))
        seen.add((model.training, frozenset(rows)))
        return compute_loss(self, model, inputs, *arguments, **keywords)

    type(trainer).compute_loss, kept = noted, compute_loss
    try:
        trainer.train()
    finally:
        type(trainer).compute_loss = kept
    trained = set().union(*(rows for training, rows in seen if training))
    guarded = set().union(*(rows for training, rows in seen if not training))
    assert trained == examples_of(trainer.train_dataset)
    assert len(guarded) == 9
    assert guarded | trained == examples_of(Rows(0, 96))
    assert not guarded & trained


def test_data_sets_of_hugging_face_stay_such(tmp_path):
    datasets = pytest.importorskip("datasets")
    from metaopt.nowcast.integrations.huggingface import add_nowcast

    rows = Rows(0, 200)
    trainer = hugging_face(tmp_path, steps=8)
    columns = {"inputs": rows.inputs.tolist(), "labels": rows.labels.tolist(), "unused": [""] * 200}
    trainer.train_dataset = datasets.Dataset.from_dict(columns)
    add_nowcast(trainer, get_optimizer_model("Line"), **OPTIONS)
    assert isinstance(trainer.train_dataset, datasets.Dataset)
    assert len(trainer.train_dataset) == 180
    trainer.train()
    assert len(trainer.optimizer.optimizer.events) == 1


def lightning_module(returns=True):
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = Network(dropout=0)  # Lightning's checkpoints hold no random states

        def training_step(self, batch, index):
            return self.network(**batch)["loss"]

        def validation_step(self, batch, index):
            loss = self.network(**batch)["loss"]
            self.log("validation_loss", loss)
            return loss if returns else None

        def configure_optimizers(self):
            base = torch.optim.Adam(self.parameters(), lr=0.01)
            return [base], [torch.optim.lr_scheduler.StepLR(base, 1, 0.5)]

    return Module()


def fit(folder, epochs, resume=None, returns=True, layer=None, precision=None, **options):
    lightning = pytest.importorskip("lightning.pytorch")
    from metaopt.nowcast.integrations.lightning import NowcastCallback

    module = lightning_module(returns)
    if layer is not None:
        module.network.layers[2] = layer
    lightning.seed_everything(0, verbose=False)
    trainer = lightning.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        precision=precision,
        callbacks=[NowcastCallback(get_optimizer_model("Line"), **{**OPTIONS, **options})],
        **QUIET,
    )
    trainer.fit(module, DataLoader(Rows(0), 8), DataLoader(Rows(1), 8), ckpt_path=resume)
    return trainer, module


def test_lightning_nowcasts_and_resumes_from_its_own_checkpoint(tmp_path):
    whole, module = fit(tmp_path, 3)
    (nowcast,) = whole.optimizers
    assert nowcast.steps == 24
    assert [event.step for event in nowcast.events] == [8, 16, 24]
    assert all(event.loss_before is not None for event in nowcast.events)
    assert nowcast.base.param_groups[0]["lr"] == 0.01 / 8
    half, _ = fit(tmp_path, 2)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed, again = fit(tmp_path, 3, resume=tmp_path / "half.ckpt")
    assert resumed.optimizers[0].events == nowcast.events
    assert same_state(again, module)


@pytest.mark.parametrize("guard", GUARDS)
def test_lightning_guards_in_the_precision_of_the_training(tmp_path, guard):
    layer, noted = recorder()
    trainer, _ = fit(tmp_path, 1, layer=layer, precision="bf16-mixed", **GUARDS[guard])
    assert len(trainer.optimizers[0].events) == 1
    assert noted == IN_BFLOAT16


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_lightning_guards_with_weights_of_every_precision(tmp_path, precision, guard):
    trainer, _ = fit(tmp_path, 1, precision=precision, **GUARDS[guard])
    (event,) = trainer.optimizers[0].events
    assert event.loss_before is not None


def test_lightning_guards_with_examples_that_it_does_not_train_on(tmp_path, caplog):
    module, seen = lightning_module(), set()
    forward = module.network.forward

    def noted(inputs, labels=None):
        seen.add((torch.is_grad_enabled(), frozenset(map(tuple, inputs.tolist()))))
        return forward(inputs, labels)

    lightning = pytest.importorskip("lightning.pytorch")
    from metaopt.nowcast.integrations.lightning import NowcastCallback

    module.network.forward = noted
    module.validation_step = None  # the loss of training_step guards
    del module.validation_step
    type(module).validation_step = lightning.LightningModule.validation_step
    trainer = lightning.Trainer(
        max_epochs=4,
        callbacks=[NowcastCallback(get_optimizer_model("Line"), **OPTIONS)],
        **QUIET,
    )
    loader = DataLoader(Rows(0), 8, shuffle=True)
    for fit in (1, 2):
        trainer.fit_loop.max_epochs = 2 * fit
        trainer.fit(module, loader)
        assert "the guard of nowcasts uses 6 of the 64 training examples" in caplog.text
        trained = set().union(*(rows for training, rows in seen if training))
        guarded = set().union(*(rows for training, rows in seen if not training))
        assert (len(trained), len(guarded)) == (58, 6)
        assert trained | guarded == examples_of(Rows(0))
    assert trainer.fit_loop._data_source.dataloader() is loader


class Stream(IterableDataset):
    def __iter__(self):
        return (Rows(0)[row] for row in range(64))


def test_lightning_says_that_it_guards_with_the_validation_data_where_it_cannot_split(tmp_path, caplog):
    lightning = pytest.importorskip("lightning.pytorch")
    from metaopt.nowcast.integrations.lightning import NowcastCallback

    trainer = lightning.Trainer(
        max_epochs=1,
        callbacks=[NowcastCallback(get_optimizer_model("Line"), **OPTIONS)],
        **QUIET,
    )
    stream = DataLoader(Stream(), 8)
    trainer.fit(lightning_module(), stream, DataLoader(Rows(1), 8))
    assert "uses the validation data, so the losses that are reported on it" in caplog.text
    assert "the training data is not one data loader of a data set with enough examples" in caplog.text
    assert len(trainer.optimizers[0].events) == 1
    wrong = lightning.Trainer(
        accelerator="cpu", logger=False, callbacks=[NowcastCallback(get_optimizer_model("Line"), guard_data="test")]
    )
    with pytest.raises(InvalidConfig, match="guard_data is 'test'; expected data loaders"):
        wrong.fit(lightning_module(), stream)


def test_lightning_module_that_returns_no_loss_is_told_what_to_give(tmp_path):
    with pytest.raises(InvalidConfig, match=r"loss to guard nowcasts with is NoneType.*Return it from validation_step"):
        fit(tmp_path, 1, returns=False)
    trainer, _ = fit(tmp_path, 1, returns=False, loss=lambda module, batch: module.network(**batch)["loss"])
    assert len(trainer.optimizers[0].events) == 1


def test_lightning_runs_training_steps_again_for_batchnorm_statistics(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch")
    from metaopt.nowcast.integrations.lightning import NowcastCallback

    module, seen = lightning_module(), []
    module.network.layers[2] = nn.BatchNorm1d(8)
    training_step = type(module).training_step

    def noted(self, batch, index):
        seen.append((self is module, index))
        self.log("loss", loss := training_step(self, batch, index))
        return loss

    class Statistics(lightning.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            self.trained = copy.deepcopy(module.network.layers[2])

    type(module).training_step = noted
    trainer = lightning.Trainer(
        max_epochs=1,
        callbacks=[statistics := Statistics(), NowcastCallback(get_optimizer_model("Line"), guard=None, **OPTIONS)],
        **QUIET,
    )
    trainer.fit(module, loader := DataLoader(Rows(0), 8))
    assert [event.followed for event in trainer.optimizers[0].events] == [True]
    assert seen == [(True, index) for index in range(8)] + [(False, index) for index in range(8)]
    expected = copy.deepcopy(module.network.layers)
    reestimate_batchnorm(expected, [batch["inputs"] for batch in loader])
    layer = module.network.layers[2]
    assert torch.allclose(layer.running_mean, expected[2].running_mean)
    assert torch.allclose(layer.running_var, expected[2].running_var)
    assert not torch.allclose(layer.running_mean, statistics.trained.running_mean)
