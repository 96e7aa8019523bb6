"""Growth of a network in training: its slots, what happens at each step, and what a controller can do."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..core.errors import CheckpointError, Diverged, InvalidConfig, MetaoptError
from ..core.rng import generator, isolated
from ..core.text import reason_of, shown
from ..nowcast import Nowcast
from ..tasks import Batch, Task
from ..tasks.measure import mean_loss
from .alpha import alpha
from .blueprints import blueprint_of
from .config import GrowthConfig
from .gates import NEXT, Verdict, gate
from .gradmax import initialise_by_gradients
from .growth_seed import GrowthSeed, blend, grow, insert, parameters_of, remove, seed_of
from .history import Event, Measurement, Refusal
from .optimizer_groups import add_group, check_groups, remove_group
from .places import places
from .rollback import Rollback
from .seed_training import Features, seed_gradients, seed_losses
from .slot import Slot
from .stages import Stage

log = logging.getLogger(__name__)


class Growth:
    """The growth seeds of a network in training.

        import torch
        import metaopt
        from metaopt.growth import Growth, GrowthConfig

        task = metaopt.load_task("digits")
        model = metaopt.get_target_model("HostCNN", task.model_facts)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
        growth = Growth(model, optimizer, task, GrowthConfig(train_steps=5))
        growth.germinate("blocks.1", "conv")
        for step, batch in enumerate(task.batches(64, seed=0, epoch=0), start=1):
            optimizer.zero_grad()
            loss = task.loss(model(batch.inputs), batch.labels)
            loss.backward()
            growth.after_backward(batch)
            optimizer.step()
            growth.after_step(step, loss.item())
        growth.measure()
        growth.advance("blocks.1")  # Verdict(passed=True, reason="loss 2.1 with it, 2.2 without it")

    Args:
        model: the network, which is changed in place.
        optimizer: trains the network; seeds get parameter groups of their own.
        task: its data and loss; losses are measured on its split `guard`.
        config: the settings.
        seed: random seed of initial weights and measurements.
    Raises:
        UnknownName: the network has no such tap.
        InvalidConfig: the network cannot grow at a tap, or the optimizer takes no further parameters.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, task: Task, config: GrowthConfig, seed: int = 0
    ) -> None:
        check_groups(optimizer)
        self.model, self.optimizer, self.task, self.config, self.seed = model, optimizer, task, config, seed
        self._device = device = next(model.parameters()).device
        found = places(model, task.splits["guard"][:2].to(device).inputs, config.taps)
        self.slots = {place.tap: Slot.at(place) for place in found}
        self.host_weights = sum(parameter.numel() for parameter in model.parameters())
        self.step = 0
        self.measurements: list[Measurement] = []
        self.events: list[Event] = []
        self.refusals: list[Refusal] = []
        self._features = Features(model, ())
        self._rollback = Rollback(config.spike)

    @property
    def losses(self) -> list[float]:
        """The loss at each measurement, the first one before the first step."""
        return [each.loss for each in self.measurements]

    @property
    def focus(self) -> Slot | None:
        """The slot that a controller acts on: that with a seed in progress, else the first empty one; None if none."""
        active = [slot for slot in self.slots.values() if slot.stage.is_cullable]
        free = [slot for slot in self.slots.values() if slot.stage is Stage.DORMANT] if self._may_grow() else []
        return next(iter(active + free), None)

    @property
    def seed_weights(self) -> int:
        """Weights of all growth seeds in the network [count]."""
        return sum(self.weights_of(slot) for slot in self.slots.values())

    def weights_of(self, slot: Slot) -> int:
        """Weights of the growth seed of a slot; 0 without one [count]."""
        return sum(each.numel() for each in self._seed(slot).parameters()) if slot.stage.has_seed else 0

    def alpha_of(self, slot: Slot) -> float:
        """α of the growth seed of a slot; 0 without one."""
        return float(self._seed(slot).alpha) if slot.stage.has_seed else 0.0

    @property
    def facts(self) -> list[dict[str, Any]]:
        """The growth seeds as the facts of a snapshot, from which `grow` builds them again."""
        return [slot.facts._asdict() for slot in self._with_seed() if slot.facts is not None]

    def germinate(self, tap: str, blueprint: str) -> Event:
        """Put a growth seed into an empty slot. If that fails, nothing has changed.

        Raises:
            InvalidConfig: there is no such slot, it is not empty, the network has as many seeds as it may, or the
                blueprint does not fit the features.
            UnknownName: its topology has no such blueprint.
        """
        slot = self._slot(tap)
        if slot.stage is not Stage.DORMANT:
            raise InvalidConfig(f"the slot {tap} is {slot.stage}; a seed can only germinate in one that is dormant")
        if not self._may_grow():
            raise InvalidConfig(
                f"no seed can germinate at {tap}: seeds of GrowthConfig is {self.config.seeds}, and the network has as "
                "many; raise it, or cull one"
            )
        with isolated(int(torch.randint(2**31, (), generator=generator(self.seed, self.step, *tap.encode())))):
            seed = GrowthSeed(blueprint_of(slot.topology, blueprint).build(slot.dim))
        insert(self.model, tap, seed)
        try:
            if self.config.initialisation == "gradmax":
                initialise_by_gradients(self.model, self.task, self._examples(), tap)
            self._add_group(tap)
        except BaseException:
            remove(self.model, tap)
            raise
        slot.blueprint, slot.order = blueprint, sum(event.after is Stage.GERMINATED for event in self.events)
        return self._move(slot, Stage.GERMINATED, "asked for")

    def advance(self, tap: str) -> Verdict:
        """Let the growth seed of a slot enter its next stage if it passes the gate."""
        slot = self._slot(tap)
        verdict = gate(slot, self.step, self.config)
        if verdict.passed:
            self._move(slot, NEXT[slot.stage], verdict.reason)
        elif slot.stage in NEXT:
            self.refusals.append(Refusal(self.step, tap, slot.stage, slot.blueprint, verdict.reason))
        return verdict

    def cull(self, tap: str, reason: str = "asked for") -> Event:
        """Remove a growth seed.

        Raises:
            IllegalTransition: the slot has no seed, or a fossilized one.
        """
        slot = self._slot(tap)
        event = self._move(slot, Stage.CULLED, reason)
        remove_group(self.optimizer, list(self._seed(slot).parameters()))
        remove(self.model, tap)
        self._keep()
        return event

    @property
    def can_nowcast(self) -> bool:
        """Whether the optimizer is a `Nowcast`, whose forecasts can be asked for."""
        return isinstance(self.optimizer, Nowcast)

    def nowcast(self, horizon: int) -> None:
        """Replace the weights by a forecast, if the guard of the optimizer accepts it.

        Args:
            horizon: time to the forecast [steps].
        Raises:
            InvalidConfig: the optimizer is no `Nowcast`.
        """
        if not isinstance(self.optimizer, Nowcast):
            raise InvalidConfig("nowcasts need a metaopt.Nowcast around the optimizer")
        self.optimizer.nowcast(horizon)

    def after_backward(self, batch: Batch) -> None:
        """Set the gradients of seeds that are trained on features of the host; call it before each step.

        Args:
            batch: the batch of this step, on the device of the network.
        """
        features = {slot.tap: self._features[slot.tap] for slot in self._at(Stage.TRAINING)}
        for tap, values in features.items():  # read above, because each second pass replaces those that follow
            seed_gradients(self.model, self.task, batch, tap, values)

    def after_step(self, step: int, loss: float) -> list[Event]:
        """Note a step of training: α rises, and slots enter the stages that follow by themselves.

        Args:
            step: steps so far [steps].
            loss: the loss before the step.
        Returns: what changed.
        Raises:
            Diverged: the loss is not finite, and no seed is being blended in whose removal could help.
        """
        self.step, known = step, len(self.events)
        if self._blending() and self._rollback.is_spike(loss):
            self._undo(loss)
        elif not math.isfinite(loss):
            raise Diverged(f"the training loss is {loss}")
        else:
            self._rollback.note(loss)
        for slot in self.slots.values():
            self._follow(slot)
        return self.events[known:]

    def measure(self) -> float:
        """Measure the loss of the network, and that of the slot in focus with and without its seed."""
        examples, slot = self._examples(), self.focus
        if slot is not None and slot.stage.is_cullable:
            blended = slot.stage.is_blended
            found = seed_losses(self.model, self.task, examples, slot.tap, is_blended=blended)
            loss, slot.loss_with, slot.loss_without = found
        else:
            loss = mean_loss(self.model, self.task, [examples])
        alphas = {tap: self.alpha_of(slot) for tap, slot in self.slots.items()}
        self.measurements.append(Measurement(self.step, loss, alphas, self.seed_weights))
        if not self._rollback.is_spike(loss):
            self._keep()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs, beside the states of the network and of the optimizer."""
        return {
            "slots": [slot.state() for slot in self.slots.values()],
            "step": self.step,
            "measurements": [[*each] for each in self.measurements],
            "events": [[*event] for event in self.events],
            "refusals": [[*refusal] for refusal in self.refusals],
            "rollback": self._rollback.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state in a network that has not grown; load the states of network and optimizer afterwards.

        Raises:
            CheckpointError: the state is of another network or other settings, or no state of a growth.
        """
        try:
            self._load(state)
        except MetaoptError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"the state of growth is damaged ({reason_of(error)}); copy it again") from error

    def _load(self, state: Mapping[str, Any]) -> None:
        if len(state["slots"]) != len(self.slots):
            raise CheckpointError(f"growth of {len(state['slots'])} slots; expected {len(self.slots)}")
        for slot, values in zip(self.slots.values(), state["slots"], strict=True):
            slot.load(values)
        self.step = int(state["step"])
        self.measurements = [Measurement(*each) for each in state["measurements"]]
        self.events = [Event.of(each) for each in state["events"]]
        self.refusals = [Refusal.of(each) for each in state["refusals"]]
        with isolated():
            grow(self.model, self.facts)
        for slot in self._with_seed():
            self._add_group(slot.tap)
        self._read_features()
        self._rollback.load_state_dict(state["rollback"])

    def _follow(self, slot: Slot) -> None:
        """Let a slot enter the stages that follow by themselves."""
        since = self.step - slot.since
        if slot.stage is Stage.GERMINATED:
            self._move(slot, Stage.TRAINING, "is trained from now on")
        elif slot.stage is Stage.BLENDING:
            share = alpha(self.config.schedule, since, self.config.blend_steps)
            self._seed(slot).alpha.fill_(share)
            if since >= self.config.blend_steps:
                self._move(slot, Stage.SHADOWING, "alpha is 1")
        elif slot.stage is Stage.CULLED:
            self._move(slot, Stage.EMBARGOED, f"stays empty for {self.config.embargo_steps} steps")
        elif slot.stage is Stage.EMBARGOED and since >= self.config.embargo_steps:
            self._move(slot, Stage.RESETTING, "the embargo is over")
        elif slot.stage is Stage.RESETTING:
            self._move(slot, Stage.DORMANT, "is empty again")

    def _undo(self, loss: float) -> None:
        """Restore the network of the last measurement, and remove the seeds that are being blended."""
        self._rollback.restore(self.model, self.optimizer)
        for slot in self._blending():
            log.warning("%s at %s is removed at step %d: loss %.4g", slot.blueprint, slot.tap, self.step, loss)
            self.cull(slot.tap, f"the loss rose to {loss:.4g}; the weights are those of the last measurement")

    def _move(self, slot: Slot, stage: Stage, reason: str) -> Event:
        event = slot.move(stage, self.step, reason)
        self.events.append(event)
        if stage is Stage.BLENDING:
            blend(self.model, slot.tap)
        if stage in (Stage.GERMINATED, Stage.BLENDING, Stage.FOSSILIZED):
            self._keep()
        self._read_features()
        return event

    def _keep(self) -> None:
        """Copy the network, which has its present seeds, if one of them is being blended; else drop the copy."""
        if self._blending():
            self._rollback.keep(self.model, self.optimizer)
        else:
            self._rollback.forget()

    def _blending(self) -> list[Slot]:
        """Slots whose seed changes the outputs of the network, and can still be removed."""
        return [slot for slot in self.slots.values() if slot.stage.is_blended and slot.stage.is_cullable]

    def _read_features(self) -> None:
        self._features.remove()
        self._features = Features(self.model, [slot.tap for slot in self._at(Stage.TRAINING)])

    def _examples(self) -> Batch:
        random = generator(self.seed, self.step)
        return self.task.sample("guard", self.config.examples, random).to(self._device)

    def _may_grow(self) -> bool:
        return len(self._with_seed()) < self.config.seeds

    def _add_group(self, tap: str) -> None:
        add_group(self.optimizer, parameters_of(self.model, tap), self.config.lr_factor)

    def _slot(self, tap: str) -> Slot:
        if tap not in self.slots:
            raise InvalidConfig(f"no slot {shown(tap)}; expected one of {', '.join(self.slots)}")
        return self.slots[tap]

    def _seed(self, slot: Slot) -> GrowthSeed:
        return seed_of(self.model, slot.tap)

    def _at(self, stage: Stage) -> list[Slot]:
        return [slot for slot in self.slots.values() if slot.stage is stage]

    def _with_seed(self) -> list[Slot]:
        """Slots with a seed, in the order in which the seeds germinated: that of their modules and groups."""
        return sorted((slot for slot in self.slots.values() if slot.stage.has_seed), key=lambda slot: slot.order)
