"""With a forecaster whose proposals change nothing, a training script equals itself without Nowcast, bit for bit."""

import json
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from metaopt.core.errors import InvalidConfig
from metaopt.generative import get_optimizer_model
from metaopt.generative.base import GenerativeOptimizer
from metaopt.generative.extrapolation import HoldConfig
from metaopt.nowcast import Nowcast

from ..small_training import QUIET, Rows, batch

pytestmark = pytest.mark.filterwarnings("ignore")  # those libraries warn of many things

SCHEDULE = {"every": 4, "stride": 2, "horizons": [2, 4], "ema": 0.9, "max_overhead": None}


class Harmful(GenerativeOptimizer):
    """Forecasts that a guard refuses."""

    Config = HoldConfig

    def __init__(self):
        super().__init__()
        self.config = HoldConfig()

    @property
    def history(self):
        return 3

    def extrapolate(self, history, t_history, t_end, layout):
        return history[:, -1] * 30 + 10


def forecasters():
    return [get_optimizer_model("Hold"), Harmful()]


def points(seed, count=64):
    return TensorDataset(*batch(seed, count))


def random_numbers():
    return [float(torch.rand(())), float(np.random.rand()), random.random()]


def seed_everything():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)


def equal(one, other):
    """Whether two results are the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return repr(one) == repr(other)  # NaN equals NaN


class Network(nn.Module):
    """Dropout, BatchNorm, a counter, and a hook that records."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(4, 8)),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(8, 3),
        )
        self.calls, self.recorded = 0, []
        self.layers[0].register_forward_hook(lambda module, inputs, outputs: self.recorded.append(float(outputs.sum())))

    def forward(self, inputs, labels=None):
        self.calls += 1
        logits = self.layers(inputs)
        if labels is None:
            return logits
        return {"loss": nn.functional.cross_entropy(logits.float(), labels), "logits": logits}


# Plain PyTorch


def script(folder, dtype, forecaster=None, stop=10, resume=False):
    """AMP, OneCycle, clipping, accumulation, checkpoint and resume, as in PyTorch's tutorials."""
    seed_everything()
    model, losses = Network(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    if forecaster is not None:
        held_out = points(7).tensors

        def guard():
            twin = Network()  # the guard's own: hooks and counters of `model` are the user's
            twin.load_state_dict(model.state_dict())
            twin.eval()
            return nn.functional.cross_entropy(twin(held_out[0]), held_out[1], reduction="none") + torch.rand(64) / 1e6

        optimizer = Nowcast(optimizer, model, forecaster, guard=guard, reestimate=lambda: random_numbers(), **SCHEDULE)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=20)
    scaler = torch.amp.GradScaler("cpu", enabled=dtype is torch.float16, init_scale=2.0**18)  # some steps are skipped
    loader = DataLoader(points(0), 8, shuffle=True)
    step = 0
    if resume:
        state = torch.load(folder / "state.pt", weights_only=True)
        for part, name in ((model, "model"), (optimizer, "optimizer"), (scheduler, "scheduler"), (scaler, "scaler")):
            part.load_state_dict(state[name])
        torch.set_rng_state(state["random"])
        step = state["step"]
    while step < stop:
        for inputs, labels in loader:
            with torch.autocast("cpu", dtype=dtype):
                loss = model(inputs, labels)["loss"]
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            scheduler.step()
            losses.append((float(loss.detach()), float(norm), scheduler.get_last_lr()))
            step += 1
            if step == stop:
                break
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "scaler": scaler.state_dict(),
        "random": torch.get_rng_state(),
        "step": step,
    }
    torch.save(state, folder / "state.pt")
    events = optimizer.events if forecaster is not None else None
    base_state = getattr(optimizer, "base", optimizer).state_dict()
    modes = [module.training for module in model.modules()]
    return {
        **state,
        "optimizer": base_state,
        "losses": losses,
        "modes": modes,
        "calls": (model.calls, model.recorded),
        "numbers": random_numbers(),
    }, events


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_plain_pytorch_with_mixed_precision_one_cycle_clipping_checkpoint_and_resume(dtype, tmp_path):
    plain = [script(tmp_path, dtype)[0], script(tmp_path, dtype, stop=20, resume=True)[0]]
    for forecaster in forecasters():
        first, _ = script(tmp_path, dtype, forecaster)
        second, events = script(tmp_path, dtype, forecaster, stop=20, resume=True)
        assert len(events) >= 3
        assert all(event.loss_before is not None for event in events)
        assert equal([first, second], plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_every_precision_are_restored_exactly_and_forecast(dtype):
    for forecaster, expected in ((Harmful(), False), (get_optimizer_model("Line"), True)):
        models = []
        for used in (forecaster, None):
            torch.manual_seed(0)
            model = nn.Linear(4, 3).to(dtype)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
            if used:
                sign = -1 if expected else 1
                guard = lambda weight=model.weight, sign=sign: sign * float(weight.sum())  # noqa: E731
                optimizer = Nowcast(optimizer, model, used, guard=guard, **SCHEDULE)
            for _ in range(8):
                optimizer.zero_grad()
                (-model.weight.sum()).backward()
                optimizer.step()
            models.append(model)
        assert model.weight.dtype == dtype
        assert torch.equal(models[0].weight, models[1].weight) is not expected
        assert expected is (float(models[0].weight.sum()) > float(models[1].weight.sum()))


def test_a_guard_inside_an_autocast_region_sees_the_forecast_weights():
    seen = []
    model = nn.Linear(4, 3)
    optimizer = Nowcast(
        torch.optim.SGD(model.parameters(), lr=0.1),
        model,
        Harmful(),
        guard=lambda: seen.append(float(model(torch.ones(1, 4)).sum())) or abs(seen[-1]),
        **SCHEDULE,
    )
    for _ in range(4):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(torch.ones(2, 4)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            kept = float(model(torch.ones(1, 4)).sum())
    assert abs(seen[1]) > 5 * abs(seen[0])
    assert kept == seen[0]


# Hugging Face


def hugging_face(folder, forecaster=None, own_loss=True, **options):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from metaopt.nowcast.integrations.huggingface import add_nowcast

    class Recording(transformers.TrainerCallback):
        def __init__(self):
            self.events = []

        def on_event(self, name):
            return lambda args, state, control, **_: self.events.append((name, state.global_step))

        def __getattribute__(self, name):
            return (
                self.on_event(name) if name.startswith("on_") and name != "on_event" else super().__getattribute__(name)
            )

    class Trainer(transformers.Trainer):
        seen = ()

        def compute_loss(self, model, inputs, return_outputs=False, **keywords):
            labels = inputs.pop("labels")
            outputs = model(inputs["inputs"])
            loss = nn.functional.cross_entropy(outputs.float(), labels, label_smoothing=0.1)
            self.seen = [*self.seen, float(loss)]
            self.lists.append(loss)
            self.state.log_history.append({"step": self.state.global_step, "mine": float(loss)})
            self.log({"batch_loss": float(loss)})
            return (loss, {"logits": outputs}) if return_outputs else loss

    seed_everything()
    arguments = transformers.TrainingArguments(
        str(folder),
        max_steps=16,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=16,
        gradient_accumulation_steps=2,
        learning_rate=0.01,
        lr_scheduler_type="cosine",
        warmup_steps=3,
        eval_strategy="steps",
        eval_steps=5,
        save_steps=8,
        logging_steps=2,
        metric_for_best_model="loss",
        report_to=[],
        use_cpu=True,
        bf16=options.pop("bf16", False),
        disable_tqdm=True,
        dataloader_pin_memory=False,
        label_names=["labels"],
        remove_unused_columns=False,
    )
    recording = Recording()
    kind = Trainer if own_loss else transformers.Trainer
    trainer = kind(Network(), arguments, train_dataset=Rows(0), eval_dataset=Rows(1), callbacks=[recording])
    trainer.lists = []
    if forecaster is not None:
        add_nowcast(trainer, forecaster, **SCHEDULE, **{"guard_data": "evaluation", **options})
    return trainer, recording


def trained_by_hugging_face(folder, forecaster=None, resume=False, **options):
    trainer, recording = hugging_face(folder, forecaster, **options)
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-8") if resume else None)
    timed = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "eval_runtime")
    timed += ("eval_samples_per_second", "eval_steps_per_second")
    history = [{k: v for k, v in entry.items() if k not in timed} for entry in trainer.state.log_history]
    optimizer = trainer.optimizer.optimizer
    saved = torch.load(folder / "checkpoint-16" / "optimizer.pt", weights_only=True)
    saved.pop("nowcast", None)
    saved["param_groups"] = [{k: v for k, v in group.items() if k != "nowcast"} for group in saved["param_groups"]]
    result = {
        "weights": trainer.model.state_dict(),
        "optimizer": saved,
        "history": history,
        "events": recording.events,
        "seen": list(getattr(trainer, "seen", [])),
        "lists": [float(loss) for loss in trainer.lists],
        "calls": (trainer.model.calls, trainer.model.recorded),
        "modes": [module.training for module in trainer.model.modules()],
        "loaders": len(trainer.accelerator._dataloaders),
        "numbers": random_numbers(),
        "best": (trainer.state.best_metric, trainer.state.best_model_checkpoint),
    }
    return result, getattr(optimizer, "events", None)


@pytest.mark.parametrize(
    "options", [{}, {"own_loss": False}, {"bf16": True}, {"guard_data": Rows(5)}], ids=["own", "stock", "bf16", "data"]
)
def test_hugging_face(options, tmp_path):
    same = {name: value for name, value in options.items() if name != "guard_data"}
    plain, _ = trained_by_hugging_face(tmp_path, **same)
    measured = []
    for forecaster in [Harmful()] if options else forecasters():
        result, events = trained_by_hugging_face(tmp_path, forecaster, **options)
        for name in plain:
            assert equal(result[name], plain[name]), name
        assert [event.step for event in events] == [4, 8, 12, 16]
        assert [event.accepted for event in events] == [type(forecaster).__name__ == "Hold"] * 4
        measured.append([event.loss_before for event in events])
    if not options:
        resumed, again = trained_by_hugging_face(tmp_path, forecaster, resume=True)
        assert equal(resumed["weights"], plain["weights"])
        assert [event.loss_before for event in again] == measured[1]


def test_hugging_face_takes_a_loss_and_several_evaluation_sets(tmp_path):
    trainer, _ = hugging_face(tmp_path, Harmful(), loss=lambda model, batch: model(**batch)["loss"], own_loss=False)
    trainer.args.metric_for_best_model = None
    trainer.eval_dataset = {"one": Rows(1), "two": Rows(2)}
    trainer.train()
    assert all(event.loss_before < 2 for event in trainer.optimizer.optimizer.events)
    assert trainer.model.recorded


# Lightning


def lightning_module(signature):
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network, self.losses, self.means, self.order = Network(), [], [], []
            self.last = None

        def training_step(self, batch, index):
            self.last = self.network(*batch)["loss"]  # a tensor with a gradient history
            self.order.append("training_step")
            self.log("training_loss", self.last, on_step=True)
            return self.last

        def measured(self, batch, index=0, loader=0):
            loss = self.network(*batch)["loss"]
            self.losses.append(loss)
            self.order.append(("validation_step", index, loader, self.trainer.validating, self.current_epoch))
            self.log(f"validation_loss_{loader}", loss, add_dataloader_idx=False)
            self.logger.log_metrics({"seen": len(self.losses)})
            return loss

        def on_validation_epoch_start(self):
            self.order.append("on_validation_epoch_start")

        def on_after_batch_transfer(self, batch, dataloader_idx):
            self.order.append("on_after_batch_transfer")
            return batch

        def on_validation_epoch_end(self):
            self.means.append(float(torch.stack(self.losses).mean()))
            self.log("mean", self.means[-1])
            self.losses.clear()

        def configure_optimizers(self):
            base = torch.optim.Adam(self.parameters(), lr=0.01)
            return {"optimizer": base, "lr_scheduler": torch.optim.lr_scheduler.StepLR(base, 1, 0.5)}

    steps = {
        "loss": lambda self, batch: self.measured(batch),
        "index": lambda self, batch, batch_idx: self.measured(batch, batch_idx),
        "loaders": lambda self, batch, batch_idx, dataloader_idx=0: self.measured(batch, batch_idx, dataloader_idx),
        "dictionary": lambda self, batch, batch_idx: {"loss": self.measured(batch["one"], batch_idx)},
    }
    Module.validation_step = steps[signature]
    return Module()


def trained_by_lightning(folder, loaders, forecaster=None, signature="index", precision="32-true", epochs=3, **options):
    lightning = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch import callbacks
    from lightning.pytorch.loggers import CSVLogger

    from metaopt.nowcast.integrations.lightning import NowcastCallback

    seed_everything()
    module = lightning_module(signature)
    stopping = callbacks.EarlyStopping("mean", patience=2)
    best = callbacks.ModelCheckpoint(folder, "best", monitor="mean", save_last=True, enable_version_counter=False)
    options.setdefault("guard_data", "evaluation")
    extra = [] if forecaster is None else [NowcastCallback(forecaster, **SCHEDULE, **options)]
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        precision=precision,
        logger=CSVLogger(folder, "log", version=0),
        log_every_n_steps=1,
        gradient_clip_val=0.5,
        val_check_interval=5,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[stopping, best, *extra],
    )
    dtype = {"64-true": torch.float64, "bf16-true": torch.bfloat16}.get(precision, torch.float32)
    train = DataLoader([(inputs.to(dtype), label) for inputs, label in points(0)], 8, shuffle=True)
    trainer.fit(module, train, loaders)
    (optimizer,) = trainer.optimizers
    checkpoint = torch.load(folder / "best.ckpt", weights_only=False)
    for state in checkpoint["optimizer_states"]:
        state.pop("nowcast", None)
        state["param_groups"][0].pop("nowcast", None)
    result = {
        "weights": module.state_dict(),
        "means": module.means,
        "losses": module.losses,
        "order": module.order,
        "calls": (module.network.calls, module.network.recorded),
        "modes": [each.training for each in module.modules()],
        "metrics": dict(trainer.callback_metrics),
        "log": (folder / "log" / "version_0" / "metrics.csv").read_text(),
        "stopping": (stopping.best_score, stopping.wait_count, best.best_model_score, trainer.should_stop),
        "checkpoint": {name: checkpoint[name] for name in ("state_dict", "optimizer_states", "epoch", "lr_schedulers")},
        "stage": (str(trainer.state.stage), str(trainer.state.fn)),
        "default": str(torch.get_default_dtype()),
        "numbers": random_numbers(),
    }
    return result, getattr(optimizer, "events", None)


def held_out(kind="one"):
    from lightning.pytorch.utilities.combined_loader import CombinedLoader

    one, two = DataLoader(points(1), 16), DataLoader(points(2, 24), 8)
    return {
        "one": one,
        "several": [one, two],
        "dictionary": {"one": one, "two": two},
        "combined": CombinedLoader({"one": one, "two": two}, "max_size_cycle"),
        "workers": DataLoader(points(1), 16, num_workers=1, persistent_workers=True),
        "shuffled": DataLoader(points(1), 16, shuffle=True, generator=torch.Generator().manual_seed(3)),
    }[kind]


CASES = {
    "no index": ({"signature": "loss"}, "one"),
    "index": ({}, "one"),
    "several loaders": ({"signature": "loaders"}, "several"),
    "dictionary of loaders": ({"signature": "loaders"}, "dictionary"),
    "combined loader": ({"signature": "dictionary"}, "combined"),
    "persistent workers": ({"epochs": 1}, "workers"),
    "shuffled": ({}, "shuffled"),
    "bf16-mixed": ({"precision": "bf16-mixed"}, "one"),
}


@pytest.mark.parametrize("case", CASES)
def test_lightning(case, tmp_path):
    options, kind = CASES[case]
    plain, _ = trained_by_lightning(tmp_path, held_out(kind), **options)
    for forecaster in forecasters():
        result, events = trained_by_lightning(tmp_path, held_out(kind), forecaster, **options)
        for name in plain:
            assert equal(result[name], plain[name]), name
        assert len(events) >= 2
        assert all(event.loss_before is not None and event.guard_calls >= 2 for event in events)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_lightning_with_every_precision_of_the_weights(precision, tmp_path):
    dtype = {"64-true": torch.float64, "bf16-true": torch.bfloat16}[precision]
    loader = DataLoader([(inputs.to(dtype), label) for inputs, label in points(1)], 16)
    plain, _ = trained_by_lightning(tmp_path, loader, precision=precision, epochs=1)
    result, events = trained_by_lightning(tmp_path, loader, Harmful(), precision=precision, epochs=1)
    for name in plain:
        assert equal(result[name], plain[name]), name
    assert len(events) == 2


def test_lightning_with_a_loss_and_data_of_its_own(tmp_path):
    given = DataLoader(points(5), 16)
    plain, _ = trained_by_lightning(tmp_path, held_out(), epochs=1)
    loss = lambda module, batch: module.network(*batch)["loss"]  # noqa: E731
    for options in ({"guard_data": given}, {"guard_data": list(given)}, {"guard_data": given, "loss": loss}):
        result, events = trained_by_lightning(tmp_path, held_out(), Harmful(), epochs=1, **options)
        assert equal(result["weights"], plain["weights"])
        assert equal(result["order"], plain["order"])
        measured = [event.loss_before for event in events]
    assert len(measured) == 2


def test_lightning_data_that_can_be_read_once_is_refused(tmp_path):
    with pytest.raises(InvalidConfig, match="a generator, which can be read only once"):
        trained_by_lightning(tmp_path, held_out(), Harmful(), guard_data=(batch for batch in held_out()))


def test_lightning_without_held_out_data_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(InvalidConfig, match="there is no held-out data"):
        trained_by_lightning(tmp_path, None, Harmful())


def test_lightning_logs_the_learning_rate_under_the_same_name(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.loggers import CSVLogger

    from metaopt.nowcast.integrations.lightning import NowcastCallback

    names = []
    for extra in ([], [NowcastCallback(get_optimizer_model("Hold"), **SCHEDULE)]):
        module = lightning_module("index")
        module.configure_optimizers = lambda module=module: torch.optim.Adam(module.parameters())
        monitor = lightning.callbacks.LearningRateMonitor("step")
        trainer = lightning.Trainer(
            max_steps=4,
            accelerator="cpu",
            logger=CSVLogger(tmp_path),
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[monitor, *extra],
        )
        trainer.fit(module, DataLoader(points(0), 8), held_out())
        names.append(list(monitor.lrs))
    assert names[0] == names[1] == ["lr-Adam"]
    assert isinstance(trainer.optimizers[0], Nowcast)


def test_lightning_backbone_finetuning_extends_the_layout():
    lightning = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.callbacks import BackboneFinetuning

    from metaopt.nowcast.integrations.lightning import NowcastCallback

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1])

        def validation_step(self, batch, index):
            return self.training_step(batch, index)

        def configure_optimizers(self):
            return torch.optim.Adam([each for each in self.parameters() if each.requires_grad], lr=0.01)

    module = Module()
    trainer = lightning.Trainer(
        max_epochs=2,
        callbacks=[BackboneFinetuning(1), NowcastCallback(get_optimizer_model("Line"), **SCHEDULE)],
        **QUIET,
    )
    trainer.fit(module, DataLoader(points(0), 8), DataLoader(points(1), 16))
    (optimizer,) = trainer.optimizers
    assert [event.step for event in optimizer.events] == [4, 8, 12, 16]
    assert optimizer.layout.size == sum(parameter.numel() for parameter in module.parameters())
    assert json.dumps(optimizer.state_dict()["nowcast"]["layout"])
