"""The MLflow model of a registered optimizer: checks the input, then predicts with the optimizer.

MLflow copies this file to the model and runs it without metaopt, so the file does not import metaopt by name. The model
contains the code of the optimizer as a package with its own name.
"""

import base64
import contextlib
import importlib
import inspect
import json
import logging
import math
import pkgutil
import reprlib
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.environment_variables import MLFLOW_DEFAULT_PREDICTION_DEVICE
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, PythonModel, PythonModelContext
from safetensors import SafetensorError
from safetensors.numpy import load, save

PARAMETERS = ("t_start", "t_end", "stride", "layout", "t_history")
HISTORY, WEIGHTS = "history", "weights"  # names of the column and the tensor of the input, and of the output

_LATEST = 1e15  # largest training time [optimizer steps]
_MOST = 8  # values in a message [count]
_LONGEST_NAME = 60  # in a message [characters]
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200  # [characters]
_SHORT.maxlist = _MOST
_MAX_HEADER = 2**16  # of the safetensors file of a history, which lists one tensor [bytes]

log = logging.getLogger("mlflow.pyfunc.metaopt")  # a child of MLflow's logger, which servers also show


class InvalidRequest(MlflowException, ValueError):
    """An invalid history or parameter; over HTTP, status 400."""


class NextWeights(PythonModel):
    """Predicts the weights at `t_end` [1, weights] from a history [snapshots, weights]. Thread-safe."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the optimizer with the code in the model.

        It runs on the device that the environment variable MLFLOW_DEFAULT_PREDICTION_DEVICE names, as for models of
        `mlflow.pytorch`; by default on the accelerator if there is one.

        Raises:
            InvalidRequest: the environment variable names no device of this machine.
        """
        facts = json.loads(Path(context.artifacts["layouts"]).read_text(encoding="utf-8"))
        package = _import_all(facts["package"])
        self.layout_type = importlib.import_module(f"{package.__name__}.weights.layout").Layout
        self.layouts = [self.layout_type.from_list(layout) for layout in facts["layouts"]]
        self.stride = float(facts["stride"])
        load_file = importlib.import_module(f"{package.__name__}.generative.files").load_optimizer_file
        find_device = importlib.import_module(f"{package.__name__}.core.devices").find_device
        try:
            self.device = find_device(MLFLOW_DEFAULT_PREDICTION_DEVICE.get() or "auto")
        except ValueError as error:
            message = f"{MLFLOW_DEFAULT_PREDICTION_DEVICE.name}: {error}"
            raise InvalidRequest.invalid_parameter_value(message) from error
        self.optimizer = load_file(Path(context.artifacts["optimizer"])).to(self.device)
        if self.optimizer.averaging:
            log.warning(
                "this optimizer was trained on snapshots of an exponential moving average of the weights (decay %g): "
                "the history must contain such averages, and the prediction is the average at t_end",
                self.optimizer.averaging,
            )

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> Any:
        """Predict the weights at `t_end`, in the format of the history.

        Args:
            context: unused after loading.
            model_input: the history, float32 [snapshots, weights], oldest first; the last row is the weights at
                `t_start`. Or a column `history` with one value: a safetensors file, as bytes or base64, with the same
                array as its tensor `history`.
            params: `t_end` [optimizer steps] and the times of the rows: either `t_history`, one time per row [optimizer
                steps], or `t_start` of the last row and the `stride` between rows, by default that of the
                meta-training [optimizer steps]; `layout`, a JSON list of [name, shape, dtype], by default that of the
                registered ones with this number of weights.
        Returns: float32 [1, weights]; for a column, one row whose `weights` is a safetensors file with that tensor.
        Raises:
            InvalidRequest: a ValueError; the history or a parameter is invalid.
        """
        history: Any = model_input
        if isinstance(history, dict):  # MLflow passes the array under its name in the signature
            history = history.get(HISTORY)
        try:
            if _is_column(history):
                file = _only_value(history)
                weights = save({WEIGHTS: self._predict(_read_history(file), params or {})})
                return [{WEIGHTS: weights if isinstance(file, bytes) else base64.b64encode(weights).decode("ascii")}]
            return self._predict(_from_json(history), params or {})
        except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as error:
            raise InvalidRequest.invalid_parameter_value(str(error)) from error

    def _predict(self, rows: np.ndarray, params: dict[str, Any]) -> np.ndarray:
        names = self._all_param_names()  # without the defaults of the signature
        _check_names({*map(str, params), *names})
        _check_rows(rows)
        t_end = _number(params, "t_end")
        steps = _given_times(params, names, len(rows)) or self._even_times(params, t_end, len(rows))
        if t_end < steps[-1]:
            raise ValueError(f"t_end={t_end} is before the last row, {steps[-1]}; expected t_end ≥ t_start: correct it")
        layout = self._layout(rows.shape[1], params.get("layout") or "")
        rows, steps = rows[-self.optimizer.history :], steps[-self.optimizer.history :]
        times = torch.tensor(steps, dtype=torch.float32)
        end = torch.tensor([t_end], dtype=torch.float32)
        history = torch.from_numpy(np.require(rows, requirements=["C", "W"]))
        history, times, end = (each.to(self.device) for each in (history[None], times[None], end))
        predicted: np.ndarray = self.optimizer.predict(history, times, end, layout).cpu().numpy()
        if not np.isfinite(predicted).all():
            raise ValueError(
                f"the prediction for t_end={t_end} holds NaN or infinity; expected weights and times of a training: "
                "give a t_end nearer to the last row, or snapshots with smaller weights"
            )
        return predicted

    def _even_times(self, params: dict[str, Any], t_end: float, rows: int) -> list[float]:
        """The times of rows that are a stride apart; rows that the optimizer ignores may be from before the start."""
        t_start = _number(params, "t_start")
        stride = self.stride if params.get("stride") is None else _number(params, "stride")
        if t_end < t_start or stride <= 0:
            raise ValueError(
                f"t_start={t_start}, t_end={t_end}, stride={stride}; expected t_end ≥ t_start, stride > 0: correct them"
            )
        used = min(rows, self.optimizer.history)
        if t_start - stride * (used - 1) < 0:
            raise ValueError(
                f"{used} rows with stride={stride} up to t_start={t_start} begin before step 0; expected a stride that "
                "fits the snapshots: correct it, or give t_history, the training time of each row"
            )
        return [t_start - stride * age for age in reversed(range(rows))]

    def _all_param_names(self) -> set[str]:
        """The names of all given parameters, including misspelled ones.

        MLflow drops names that are not in the signature and only logs a warning, so a misspelled `stride` would change
        the prediction silently. The full dictionary exists only in the frame of the calling `PyFuncModel.predict`;
        without that frame the set is empty.
        """
        predict = inspect.unwrap(PyFuncModel.predict).__code__
        frame = inspect.currentframe()
        while frame is not None and frame.f_code is not predict:
            frame = frame.f_back
        with contextlib.suppress(AttributeError):  # another kind of model calls directly
            if frame is not None and frame.f_locals["self"].unwrap_python_model() is self:
                return set(map(str, frame.f_locals["params"] or ()))
        return set()

    def _layout(self, weights: int, text: str) -> Any:
        if text:
            return self._parse_layout(weights, text)
        matching = [layout for layout in self.layouts if layout.size == weights]
        if len(matching) != 1:
            sizes = ", ".join(f"{layout.size:,}" for layout in self.layouts)
            raise ValueError(
                f"{weights:,} weights per row match {len(matching)} of the registered layouts ({sizes} weights); "
                "expected exactly one. For another network pass its layout in params: JSON, [name, shape, dtype] per "
                "tensor"
            )
        return matching[0]

    def _parse_layout(self, weights: int, text: str) -> Any:
        try:
            layout = self.layout_type.from_list(json.loads(text))
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(
                f"layout is {_shown(text)} ({error}); expected JSON, [name, shape, dtype] per tensor"
            ) from error
        if layout.size != weights:
            raise ValueError(
                f"got {weights:,} weights per row; the layout in params has {layout.size:,}: pass matching ones"
            )
        return layout


def _import_all(name: str) -> ModuleType:
    """Import a package with all its modules, because its folder may be temporary."""
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        importlib.import_module(module.name)
    return package


def _shown(value: Any) -> str:
    """A value of a request in a message: a request can hold a text of any length."""
    return _SHORT.repr(value)


def _is_column(history: Any) -> bool:
    if not isinstance(history, np.ndarray) or history.ndim != 1:
        return False
    return all(isinstance(value, str | bytes) for value in history)


def _only_value(column: np.ndarray) -> str | bytes:
    if len(column) != 1:
        raise ValueError(f"column {HISTORY} has {len(column)} rows; expected one: send a request per history")
    value: str | bytes = column[0]
    return value


def _read_history(file: str | bytes) -> np.ndarray:
    """Read the history from a safetensors file.

    Raises:
        ValueError: the file is not safetensors or has no tensor of that name.
    """
    expected = f"expected a safetensors file with the float32 tensor {HISTORY} [snapshots, weights]"
    try:
        content = file if isinstance(file, bytes) else base64.b64decode(file)
        if (header := int.from_bytes(content[:8], "little")) > _MAX_HEADER:
            raise ValueError(f"its header has {header} bytes; at most {_MAX_HEADER} are needed for one tensor")
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:  # KeyError: a dtype that numpy lacks
        raise ValueError(
            f"column {HISTORY} cannot be read ({_shown(error)}); {expected}, over HTTP in base64"
        ) from error
    if HISTORY not in tensors:
        raise ValueError(f"the file in column {HISTORY} holds {_shown(sorted(tensors))}; {expected}: rename the tensor")
    return tensors[HISTORY]


def _from_json(rows: Any) -> Any:
    """Convert a two-dimensional array of Python numbers, as MLflow parses JSON, to float32; return others unchanged."""
    if not isinstance(rows, np.ndarray) or rows.dtype != object or rows.ndim != 2:
        return rows
    try:
        return rows.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"history is not a table of numbers ({_shown(error)}); expected [snapshots, weights]"
        ) from error


def _check_names(names: set[str]) -> None:
    unknown = sorted(names - set(PARAMETERS))
    if unknown:
        found = ", ".join(name[:_LONGEST_NAME] for name in unknown[:_MOST])
        raise ValueError(f"unknown params {found}; expected some of {', '.join(PARAMETERS)}: correct the names")


def _number(params: dict[str, Any], name: str) -> float:
    value = params.get(name)
    if value is None:
        raise ValueError(
            f"params lack {name} [optimizer steps]; expected, for example, {{'t_start': 500, 't_end': 600}}"
        )
    return _step(name, value)


def _step(name: str, value: Any) -> float:
    if isinstance(value, bool | str) or not math.isfinite(value) or abs(value) > _LATEST:
        raise ValueError(
            f"{name} is {_shown(value)}; expected a finite number of optimizer steps, at most {_LATEST:g}: correct it"
        )
    return float(value)


def _given_times(params: dict[str, Any], names: set[str], rows: int) -> list[float]:
    """The times in `t_history`; empty without it.

    Raises:
        ValueError: they are not one increasing time per row, or a parameter that they replace is given, too.
    """
    values = params.get("t_history")
    if values is None or len(values) == 0:
        return []
    times = [_step("a time in t_history", value) for value in values]
    if len(times) != rows or any(later <= earlier for earlier, later in pairwise(times)):
        raise ValueError(
            f"t_history is {_shown(times)}; expected {rows} increasing times, one for each row of the history: "
            "correct it"
        )
    if both := sorted(names & {"t_start", "stride"}):
        raise ValueError(f"t_history and {', '.join(both)} are given; expected one of both: omit {', '.join(both)}")
    return times


def _check_rows(rows: Any) -> None:
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or not len(rows):
        found = f"shape {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise ValueError(
            f"history is {found}; expected a numpy array [snapshots ≥ 1, weights]: use weights[None] for one snapshot"
        )
    if rows.dtype != np.float32:
        raise ValueError(f"history is {rows.dtype}; expected float32: use history.astype(numpy.float32)")
    if not np.isfinite(rows).all():
        raise ValueError(
            "history holds NaN or infinity; expected finite weights: give snapshots from before the training diverged"
        )


if not __package__:  # MLflow runs this file alone; an import as part of metaopt needs only the class
    mlflow.models.set_model(NextWeights())
