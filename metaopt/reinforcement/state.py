"""Training state of a controller: the policy that PPO trains, its optimizer, and the curve of returns."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ..core.dependencies import import_extra
from ..core.errors import CheckpointError, FileFormatError
from ..core.rng import generator, isolated, random_states, restore_random_states
from ..growth.policy import Policy, build_policy, description_of
from ..optimizers.state import check_optimizer_state
from ..trajectories.checkpoint import KIND, expect_same, load_checkpoint, save_checkpoint
from ..trajectories.ledger_entry import TrainingFacts
from ..weights.building import check_finite, check_state
from ..weights.facts import COUNT, MAPPING, check_fields
from ..weights.files import read_facts
from .config import TrainControllerConfig
from .environment import GrowthEnv
from .imitation import agreement, check_imitated, demonstrations, fit, imitated_controller
from .problem import Problem
from .scored_episode import Result
from .selection import Selection
from .twins import Twins

_Callback: Any = import_extra("stable_baselines3.common.callbacks", "growth").BaseCallback
loggers = import_extra("stable_baselines3.common.logger", "growth")
vectors = import_extra("stable_baselines3.common.vec_env", "growth")
sb3_contrib = import_extra("sb3_contrib", "growth")

_PPO_METRICS = {
    "entropy": ("train/entropy_loss", -1.0),
    "kl": ("train/approx_kl", 1.0),
    "value_loss": ("train/value_loss", 1.0),
    "clip_fraction": ("train/clip_fraction", 1.0),
}
"""Names in the logger of stable-baselines3 and a factor, by metric."""

_STATE = {"ppo": MAPPING, "optimizer": MAPPING, "random": MAPPING, "policy": MAPPING, "rollout": COUNT}


class ControllerTrainingState:
    """A policy in training by maskable PPO (Huang & Ontañón 2020, arXiv:2006.14171; Schulman et al. 2017).

    The configuration and the number of rollouts determine its weights on a CPU. Each rollout consists of whole, new
    episodes, whose random seeds follow from the number of the rollout. So nothing of the environments is needed to
    resume, and a resumed training equals an uninterrupted one, bit for bit.

    The constructor seeds all random generators of the process.

    Args:
        config: the settings.
        problem: what is trained.
        twins: losses of runs without growth.
    Raises:
        UnknownName, InvalidConfig: a package of the extra `growth` is missing, or there is no controller to imitate.
    """

    def __init__(self, config: TrainControllerConfig, problem: Problem, twins: Twins) -> None:
        if config.imitate is not None:
            check_imitated(problem, config.imitate)
        self._config, self._problem, self._twins = config, problem, twins
        seeds = config.selection_seeds(config.selection_episodes)
        self._selection = Selection(problem, twins, seeds) if config.imitate is not None and seeds else None
        self._environments = vectors.DummyVecEnv([lambda: GrowthEnv(problem, twins)] * config.n_envs)
        decisions = config.decisions * config.rollout_episodes
        self._ppo = sb3_contrib.MaskablePPO(
            "MlpPolicy",
            self._environments,
            learning_rate=config.policy_lr,
            n_steps=decisions,
            batch_size=_batch_size(decisions * config.n_envs, config.minibatch),
            n_epochs=config.ppo_epochs,
            gamma=config.discount,
            gae_lambda=config.gae_lambda,
            clip_range=config.clip_range,
            ent_coef=config.entropy,
            policy_kwargs={"net_arch": list(config.hidden)},
            seed=config.seed,
            device="cpu",
        )
        self._ppo.set_logger(loggers.Logger(None, []))
        self.rollout = 0
        """Rollouts so far [count]."""
        self.curve: list[list[float]] = []
        """Mean return and mean loss over that of the twins, of each rollout."""
        self.metrics: dict[str, float] = {}
        """Those of the last rollout."""
        self.imitated: str | None = None
        """Name of the controller that was imitated."""

    @property
    def decisions(self) -> int:
        """Decisions so far, the timesteps of PPO [count]."""
        return int(self._ppo.num_timesteps)

    @property
    def policy(self) -> Policy:
        """The policy as a controller: the best so far if one is chosen, else the last one."""
        return self._selection.best if self._selection and self._selection.best else self.last_policy

    @property
    def last_policy(self) -> Policy:
        """The policy in training, which decides exactly as the deterministic policy of stable-baselines3."""
        policy = self._new_policy()
        policy.load_state_dict(converted(self._ppo.policy.state_dict()))
        return policy.eval().requires_grad_(False)

    def imitate(self) -> dict[str, float]:
        """Fit the policy to the decisions of the controller that the configuration names; returns metrics.

        It must be called before the first rollout.
        """
        config = self._config
        self.imitated = imitated_controller(self._problem, self._twins, config)
        episodes = demonstrations(self._problem, self._twins, config, self.imitated)
        fit(self._ppo.policy, episodes, config.discount)
        return {
            "agreement": agreement(self.last_policy.decide, episodes),
            "demonstrated_return": fmean(episode.result.total for episode in episodes),
            **self._select(),
        }

    def train(self) -> dict[str, float]:
        """Play the episodes of one rollout, and update the policy; returns metrics."""
        seed = int(torch.randint(2**31, (), generator=generator(self._config.seed, self.rollout)))
        self._environments.seed(seed)
        self._ppo.set_env(self._environments, force_reset=True)
        finished = _FinishedEpisodes()
        steps = self._ppo.n_steps * self._config.n_envs
        self._ppo.learn(steps, callback=finished, log_interval=None, reset_num_timesteps=False)
        self.rollout += 1
        metrics = _episode_metrics(finished.results)
        self.curve.append([metrics["return"], metrics["loss_over_twin"]])
        logged = self._ppo.logger.name_to_value
        self.metrics = metrics | {name: factor * float(logged[key]) for name, (key, factor) in _PPO_METRICS.items()}
        self.metrics |= self._select()
        return self.metrics

    def save(self, path: Path, facts: Mapping[str, Any] | None = None, about: TrainingFacts | None = None) -> None:
        """Write a checkpoint, between rollouts.

        Args:
            facts: further facts of the training, as JSON values.
            about: what the sidecar of the checkpoint states; None writes none.
        Raises:
            StorageError: the disk is full; an older checkpoint at this path is kept.
        """
        policy = self.policy
        state = {
            "ppo": self._ppo.policy.state_dict(),
            "optimizer": self._ppo.policy.optimizer.state_dict(),
            "policy": policy.state_dict(),
            "random": random_states(),
            "rollout": self.rollout,
            "decisions": self.decisions,
            "curve": self.curve,
            "metrics": self.metrics,
            "imitated": self.imitated,
        }
        if self._selection is not None:
            state |= {"best_returns": self._selection.returns, "best_rollout": self._selection.rollout}
        save_checkpoint(path, state, {**(facts or {}), **self._own, "policy": description_of(policy)}, about)

    def load(self, path: Path) -> None:
        """Restore a checkpoint.

        Raises:
            FileFormatError: the file is damaged.
            CheckpointError: the checkpoint belongs to another training; the message names the value that differs.
        """
        state, facts = load_checkpoint(path)
        check_is_controller(facts, path)
        expect_same(facts, self._own, path)
        try:
            check_fields(state, _STATE)
            check_state("the policy", self._ppo.policy.state_dict(), state["ppo"])
            check_finite(state["ppo"])
            check_optimizer_state(self._ppo.policy.optimizer, state["optimizer"])
            self._ppo.policy.load_state_dict(state["ppo"])
            self._ppo.policy.optimizer.load_state_dict(state["optimizer"])
            self.rollout, self._ppo.num_timesteps = state["rollout"], int(state["decisions"])
            self.curve = [[float(number) for number in point] for point in state["curve"]]
            self.metrics = {str(name): float(value) for name, value in state["metrics"].items()}
            self.imitated = state["imitated"]
            if self._selection is not None:
                self._selection.best = build_policy(path, facts["policy"], state["policy"])
                self._selection.returns = [float(number) for number in state["best_returns"]]
                self._selection.rollout = int(state["best_rollout"])
            restore_random_states(state["random"])
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} is no checkpoint of a controller ({error}); train again without --resume-from"
            ) from error

    def _new_policy(self) -> Policy:
        names = [action.name for action in self._problem.actions]
        with isolated():  # else the interval of checkpoints, which hold it, would change the training
            return Policy(names, self._config.hidden, self._config.growth.to_mapping())

    def _select(self) -> dict[str, float]:
        """Keep the policy if it is the best so far; returns metrics."""
        if self._selection is None:
            return {}
        selection = self._selection
        found = selection.consider(self.last_policy, self.rollout)
        return {
            "selection_return": found,
            "best_selection_return": fmean(selection.returns),
            "best_rollout": float(selection.rollout),
        }

    @property
    def _own(self) -> dict[str, Any]:
        return {"controller": self._problem.facts, "settings": self._config.settings()}


def converted(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a `Policy` in those of an actor-critic policy of stable-baselines3; the critic is left out."""
    actor = [name for name in weights if name.startswith(("mlp_extractor.policy_net.", "action_net."))]
    layers = dict.fromkeys(name.rpartition(".")[0] for name in actor)
    numbers = {layer: 2 * index for index, layer in enumerate(layers)}  # a tanh is between two layers
    return {
        f"layers.{numbers[layer]}.{kind}": weights[name].detach().clone()
        for name in actor
        for layer, _, kind in [name.rpartition(".")]
    }


def check_is_controller(facts: Mapping[str, Any], path: Path) -> None:
    """Check that the facts of a checkpoint are of phase 3.

    Raises:
        CheckpointError: they are not.
    """
    if not isinstance(facts.get("controller"), Mapping) or not isinstance(facts.get("policy"), Mapping):
        raise CheckpointError(f"{path} is no checkpoint of phase 3: it has no controller. Give one of train-controller")


def policy_of_checkpoint(path: Path) -> Policy:
    """The policy in a checkpoint of phase 3.

    Raises:
        FileFormatError: the file is damaged.
        CheckpointError: the checkpoint is of another phase.
    """
    check_is_controller(read_facts(path, KIND), path)
    state, facts = load_checkpoint(path)
    if not isinstance(state.get("policy"), Mapping):
        raise FileFormatError(f"{path} has no policy; copy the checkpoint again")
    return build_policy(path, facts["policy"], state["policy"])


def _batch_size(decisions: int, wanted: int) -> int:
    """A minibatch size with which none has one decision: its advantage could not be normalised."""
    return next((size for size in range(wanted, decisions) if decisions % size != 1), decisions)


def _episode_metrics(results: Sequence[Result]) -> dict[str, float]:
    return {
        "return": fmean(result.total for result in results),
        "loss": fmean(result.loss for result in results),
        "loss_over_twin": fmean(result.ratio for result in results),
        "grown": fmean(result.grown for result in results),
        "episodes": float(len(results)),
    }


class _FinishedEpisodes(_Callback):
    """Collects the results of the episodes of a rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[Result] = []

    def _on_step(self) -> bool:
        self.results += [info["result"] for info in self.locals["infos"] if "result" in info]
        return True
