"""Signature, input example and metadata of registered optimizers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

from ..generative.base import GenerativeOptimizer
from ..weights.layout import Layout

_MANY_WEIGHTS = 100_000  # above this, an example with several rows takes megabytes of JSON


def signature(stride: float) -> ModelSignature:
    """One signature for both forms of a history: an array, or a column with a safetensors file.

    A signature has one input schema. A schema of columns rejects arrays, and one of float32 tensors rejects columns.
    Only a named tensor of objects accepts both. `pyfunc_model.py` makes the checks that MLflow then omits.

    Args:
        stride: default steps between the rows of a history [optimizer steps].
    """
    params = ParamSchema(
        [
            ParamSpec("t_start", "double", None),  # MLflow requires a default; pyfunc_model.py rejects None
            ParamSpec("t_end", "double", None),
            ParamSpec("stride", "double", float(stride)),
            ParamSpec("layout", "string", ""),
            ParamSpec("t_history", "double", np.array([]), shape=(-1,)),
        ]
    )
    history = Schema([TensorSpec(np.dtype(object), (-1,), "history")])
    return ModelSignature(inputs=history, outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1))]), params=params)


def example(layouts: Sequence[Layout], stride: float) -> tuple[np.ndarray, dict[str, float]]:
    """A history of the smallest network, with values that are short in JSON, and its parameters."""
    weights = min(layout.size for layout in layouts)
    rows = 1 if weights > _MANY_WEIGHTS else 3
    values = np.random.default_rng(0).integers(-2, 3, size=(rows, weights)) / 8
    return values.astype(np.float32), {"t_start": 2 * stride, "t_end": 3 * stride}


def metadata(optimizer: GenerativeOptimizer, stride: float) -> dict[str, Any]:
    """Properties of the input and the output that the signature does not contain."""
    averages = f"exponential moving averages of the weights, decay {optimizer.averaging:g}"
    return {
        "input": "float32 [snapshots, weights], or a column `history` with a safetensors file of a tensor `history`",
        "output": "float32 [1, weights], or a column `weights` with a safetensors file of a tensor `weights`",
        "snapshots_are": averages if optimizer.averaging else "the weights",
        "averaging": optimizer.averaging,
        "stride": float(stride),
        "most_snapshots": optimizer.history,
    }
