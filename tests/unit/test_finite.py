"""Detection of infinite and NaN weights."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metaopt.weights.layout import is_finite


@given(st.lists(st.floats(width=32), max_size=20), st.sampled_from([torch.float32, torch.float64]))
def test_the_result_equals_a_check_of_each_value(values: list[float], dtype: torch.dtype) -> None:
    assert is_finite(torch.tensor(values, dtype=dtype)) == all(map(math.isfinite, values))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.bfloat16, torch.float16])
def test_other_dtypes_are_supported(dtype: torch.dtype) -> None:
    assert is_finite(torch.ones(3, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_one_value_in_low_precision_is_detected(dtype: torch.dtype, value: float) -> None:
    assert not is_finite(torch.tensor([1.0, value, 2.0], dtype=dtype))
