"""Comparison of a user's own training with and without nowcasts, in an MLflow run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..comparison.config import CompareConfig
from ..comparison.runner import ComparisonRunner
from ..comparison.summary import ComparisonSummary
from ..comparison.training import Training, load_training, training_of
from ..core.errors import InvalidConfig
from ..core.text import counted
from ..reporting.training_report import publish_training, training_table
from ..tracking import RunReference, start_run


@dataclass(frozen=True)
class ComparedTraining:
    """Result of a comparison of a training with and without nowcasts. `print` shows its table and its verdict.

    Attributes:
        run: the MLflow run with charts and reports.
        summary: rows, verdicts and notes.
    """

    run: RunReference
    summary: ComparisonSummary

    @property
    def verdict(self) -> str:
        """The verdict in a sentence: `helps: difference of loss −5.2 ± 1.4 %`."""
        return self.summary.verdict.sentence

    @property
    def failure(self) -> str | None:
        """The trainings that failed, in sentences; None if all ended."""
        return ". ".join(failure.sentence for failure in self.summary.comparison.failures) or None

    def __str__(self) -> str:
        lines = [f"{label}: {text}" for label, text in self.summary.lines.items()]
        return "\n".join([training_table(self.summary), *lines])


def compare(train: Callable[..., Any] | str, **settings: Any) -> ComparedTraining:
    """Compare a training with and without nowcasts: does `Nowcast` help here?

    The function trains once. It receives a `Trial`, trains with the optimizer that `trial.optimizer` returns, and
    returns the metric to compare, or, better, a function that evaluates the network: with it, running averages of the
    weights are compared as well. It is called twice for each random seed, with nowcasts and without, with all global
    random generators seeded alike.

        import torch
        import metaopt

        def train(trial):
            inputs, targets = torch.randn(256, 4), torch.randn(256, 1)
            model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
            loss = lambda: torch.nn.functional.mse_loss(model(inputs), targets)
            optimizer = trial.optimizer(torch.optim.Adam(model.parameters(), lr=0.01), model)
            for step in range(80):
                optimizer.zero_grad()
                loss().backward()
                optimizer.step()
            return lambda: loss().item()

        result = metaopt.compare(train, seeds=2, metric="loss")
        print(result.verdict)
        print(result)

    Args:
        train: the function, or its place, as in `my_script.py:train`.
        settings: fields of `CompareConfig`, such as `seeds`, `metric` and `better`.
    Raises:
        InvalidConfig: a setting is invalid; or the function does not use the trial as it should, returns no metric, or
            trains the same way with all random seeds.
        MetaoptError: as for `Nowcast` and for a tracking store that cannot be used.
    """
    if isinstance(train, str):
        return compare_training(CompareConfig.from_mapping({**settings, "train": train}))
    if "train" in settings:
        raise InvalidConfig("train is given twice; give the function only")
    training = training_of(train)
    return _compared(training, CompareConfig.from_mapping({**settings, "train": training.path or training.name}))


def compare_training(config: CompareConfig) -> ComparedTraining:
    """Compare a training of a script with and without nowcasts, as `compare` does.

        from pathlib import Path
        from metaopt import workflows

        lines = [
            "import torch",
            "def train(trial):",
            "    model = torch.nn.Linear(4, 1)",
            "    optimizer = trial.optimizer(torch.optim.SGD(model.parameters(), lr=0.1), model)",
            "    for step in range(80):",
            "        optimizer.zero_grad()",
            "        (model(torch.randn(16, 4)) - 1).square().mean().backward()",
            "        optimizer.step()",
            "    return model.bias.item()",
        ]
        Path("fit.py").write_text("\\n".join(lines))
        config = workflows.CompareConfig(train="fit.py:train", seeds=2)
        print(workflows.compare_training(config).verdict)

    Raises:
        InvalidConfig: no function is given.
        MetaoptError: as for `load_training` and `compare`.
    """
    if config.train is None:
        raise InvalidConfig("no training function given; expected a script and a function, as in my_script.py:train")
    return _compared(load_training(config.train), config)


def _compared(training: Training, config: CompareConfig) -> ComparedTraining:
    runner = ComparisonRunner(training, config)
    purpose = (
        f"Compares {training.name} with and without nowcasts on {counted(config.seeds, 'random seed')}. Each child run "
        "is one contender."
    )
    with start_run(f"compare {training.name}", config, description=purpose, folder=runner.store) as tracker:
        tracker.tags({"metaopt.phase": "comparison"})
        summary = ComparisonSummary(runner.run())
        publish_training(summary, tracker)
        return ComparedTraining(tracker.reference, summary)
