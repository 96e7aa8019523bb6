"""The door through which MLflow calls a registered optimizer: checks what comes in, then asks the optimizer.

MLflow copies this one file beside the model and runs it there, where metaopt need not be installed: it imports
nothing of ours by name. The code that the optimizer was trained with lies in the model as a package of its own name.
"""

import base64
import contextlib
import importlib
import inspect
import json
import logging
import math
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, PythonModel, PythonModelContext
from safetensors import SafetensorError
from safetensors.numpy import load, save

PARAMETERS = ("t_start", "t_end", "stride", "layout")
HISTORY, WEIGHTS = "history", "weights"  # names of the column and the tensor that come in, and of those that go out

log = logging.getLogger("mlflow.pyfunc.metaopt")  # below MLflow's own, which shows it in a server, too


class Refused(MlflowException, ValueError):
    """A question that cannot be answered as it is; over HTTP, status 400."""


class NextWeights(PythonModel):
    """Past weights [snapshots, weights] in, the weights at `t_end` [1, weights] out; any number of threads may ask."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the optimizer with the code that it was registered with."""
        facts = json.loads(Path(context.artifacts["layouts"]).read_text(encoding="utf-8"))
        package = _import_whole(facts["package"])
        self.layout_type = importlib.import_module(f"{package.__name__}.weights.layout").Layout
        self.layouts = [self.layout_type.from_list(layout) for layout in facts["layouts"]]
        self.stride = float(facts["stride"])
        load_file = importlib.import_module(f"{package.__name__}.generative.files").load_optimizer_file
        self.optimizer = load_file(Path(context.artifacts["optimizer"]))
        if self.optimizer.averaging:
            log.warning(
                "this optimizer was trained on snapshots of a running average of the weights (decay %g): give it such "
                "snapshots; it answers with the average at t_end",
                self.optimizer.averaging,
            )

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> Any:
        """Generate the weights at `t_end`, in the form in which the history came.

        Args:
            context: MLflow's; unused after loading.
            model_input: the history, float32 [snapshots, weights], oldest first; the last row is the weights at
                `t_start` [raw units]. Or a column `history` with one value: a safetensors file, as bytes or in
                base64, with the same array as its tensor `history`.
            params: `t_start` and `t_end` [optimizer steps]; `stride` between rows [optimizer steps], default that of
                the meta-training; `layout`, a JSON list of [name, shape, dtype], default the registered layout with
                that number of weights.
        Returns: float32 [1, weights]; for a column, one row whose `weights` is a safetensors file with that tensor.
        Raises:
            Refused: a ValueError that says what came, what was expected and what to do.
        """
        asked: Any = model_input
        if isinstance(asked, dict):  # MLflow names the array after the signature
            asked = asked.get(HISTORY)
        try:
            if _is_column(asked):
                file = _only_value(asked)
                weights = save({WEIGHTS: self._answer(_history_in(file), params or {})})
                return [{WEIGHTS: weights if isinstance(file, bytes) else base64.b64encode(weights).decode("ascii")}]
            return self._answer(_from_json(asked), params or {})
        except ValueError as error:
            raise Refused.invalid_parameter_value(str(error)) from error

    def _answer(self, rows: np.ndarray, given: dict[str, Any]) -> np.ndarray:
        _check_names({*map(str, given), *self._asked_for()})
        t_start, t_end = (_number(given, name) for name in ("t_start", "t_end"))
        stride = self.stride if given.get("stride") is None else _number(given, "stride")
        if t_end < t_start or stride <= 0:
            raise ValueError(
                f"t_start={t_start}, t_end={t_end}, stride={stride}; expected t_end ≥ t_start, stride > 0: correct them"
            )
        _check_rows(rows)
        layout = self._layout(rows.shape[1], given.get("layout") or "")
        rows = rows[-self.optimizer.history :]
        times = t_start - stride * torch.arange(len(rows) - 1, -1, -1, dtype=torch.float32)
        end = torch.tensor([t_end], dtype=torch.float32)
        history = torch.from_numpy(np.require(rows, requirements=["C", "W"]))
        generated: np.ndarray = self.optimizer.predict(history[None], times[None], end, layout).numpy()
        return generated

    def _asked_for(self) -> set[str]:
        """The names of the parameters that the user gave, misspelled ones included.

        MLflow drops names that the signature lacks and only logs a warning: a misspelled `stride` would give wrong
        weights silently. The full dictionary exists only in the frame of `PyFuncModel.predict`, which called us;
        without that frame there is nothing to add.
        """
        predict = inspect.unwrap(PyFuncModel.predict).__code__
        frame = inspect.currentframe()
        while frame is not None and frame.f_code is not predict:
            frame = frame.f_back
        with contextlib.suppress(AttributeError):  # another kind of model that asks us directly, or no frame
            if frame is not None and frame.f_locals["self"].unwrap_python_model() is self:
                return set(map(str, frame.f_locals["params"] or ()))
        return set()

    def _layout(self, weights: int, described: str) -> Any:
        if described:
            return self._described_layout(weights, described)
        fitting = [layout for layout in self.layouts if layout.size == weights]
        if len(fitting) != 1:
            known = ", ".join(f"{layout.size:,}" for layout in self.layouts)
            raise ValueError(
                f"{weights:,} weights per row fit {len(fitting)} of the registered layouts ({known} weights); expected "
                "exactly one. For another network pass its layout in params: JSON, [name, shape, dtype] per tensor"
            )
        return fitting[0]

    def _described_layout(self, weights: int, described: str) -> Any:
        try:
            layout = self.layout_type.from_list(json.loads(described))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"layout is {described!r:.60} ({error}); expected JSON, [name, shape, dtype] per tensor"
            ) from error
        if layout.size != weights:
            raise ValueError(
                f"got {weights:,} weights per row; the layout in params has {layout.size:,}: pass matching ones"
            )
        return layout


def _import_whole(name: str) -> ModuleType:
    """Import a package with all its modules at once: its folder may be temporary and gone before a late import."""
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        importlib.import_module(module.name)
    return package


def _is_column(asked: Any) -> bool:
    return isinstance(asked, np.ndarray) and asked.ndim == 1 and all(isinstance(value, str | bytes) for value in asked)


def _only_value(column: np.ndarray) -> str | bytes:
    if len(column) != 1:
        raise ValueError(f"column {HISTORY} has {len(column)} rows; expected one: ask once per history")
    value: str | bytes = column[0]
    return value


def _history_in(file: str | bytes) -> np.ndarray:
    """The history in a safetensors file.

    Raises:
        ValueError: it is not such a file, or holds no tensor of that name.
    """
    wanted = f"expected a safetensors file with the float32 tensor {HISTORY} [snapshots, weights]"
    try:
        tensors = load(file if isinstance(file, bytes) else base64.b64decode(file))
    except (SafetensorError, ValueError, KeyError) as error:  # KeyError: a number format that numpy lacks
        raise ValueError(f"column {HISTORY} cannot be read ({error!r}); {wanted}, over HTTP in base64") from error
    if HISTORY not in tensors:
        raise ValueError(f"the file in column {HISTORY} holds {sorted(tensors)}; {wanted}: name it so")
    return tensors[HISTORY]


def _from_json(rows: Any) -> Any:
    """Numbers of any kind, which is how MLflow hands on those of a JSON text, as float32; all else as it is."""
    if not isinstance(rows, np.ndarray) or rows.dtype != object or rows.ndim != 2:
        return rows
    try:
        return rows.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"history is no table of numbers ({error}); expected [snapshots, weights]") from error


def _check_names(names: set[str]) -> None:
    unknown = sorted(names - set(PARAMETERS))
    if unknown:
        raise ValueError(
            f"unknown params {', '.join(unknown)}; expected some of {', '.join(PARAMETERS)}: correct the names"
        )


def _number(params: dict[str, Any], name: str) -> float:
    value = params.get(name)
    if value is None:
        raise ValueError(
            f"params lack {name} [optimizer steps]; expected, for example, {{'t_start': 500, 't_end': 600}}"
        )
    if isinstance(value, bool | str) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}; expected a finite number of optimizer steps: correct params")
    return float(value)


def _check_rows(rows: Any) -> None:
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or not len(rows):
        came = f"shape {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise ValueError(
            f"history is {came}; expected a numpy array [snapshots ≥ 1, weights]: use weights[None] for one"
        )
    if rows.dtype != np.float32:
        raise ValueError(f"history is {rows.dtype}; expected float32: use history.astype(numpy.float32)")
    if not np.isfinite(rows).all():
        raise ValueError(
            "history holds NaN or infinity; expected finite weights: give snapshots from before it diverged"
        )


if not __package__:  # MLflow runs this file on its own; whoever imports it as part of a package wants only the class
    mlflow.models.set_model(NextWeights())
