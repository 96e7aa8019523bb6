"""Weights that are not ordinary: what `Layout.of` accepts can be written and read again, and the rest is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from metaopt.core.errors import LayoutMismatch
from metaopt.generative import get_optimizer_model
from metaopt.nowcast import Nowcast
from metaopt.weights.layout import Layout
from metaopt.weights.model_files import load_model_weights, save_model_weights

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.float8_e4m3fn]
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


class Network(nn.Module):
    """Some parameters, of which some may be frozen."""

    def __init__(self, tensors):
        super().__init__()
        for number, (tensor, frozen) in enumerate(tensors):
            self.register_parameter(f"weight_{number}", nn.Parameter(tensor, requires_grad=not frozen))


def parameters():
    tensors = st.builds(lambda shape, dtype: torch.ones(shape).to(dtype), SHAPES, st.sampled_from(DTYPES))
    return st.lists(st.tuples(tensors, st.booleans()), max_size=4)


@settings(max_examples=150, deadline=None)
@given(parameters())
def test_what_the_layout_accepts_is_what_its_reader_accepts(tensors):
    model = Network(tensors)
    ordinary = [tensor for tensor, frozen in tensors if not frozen]
    fits = bool(ordinary) and all(tensor.is_floating_point() and tensor.numel() for tensor in ordinary)
    if not fits:
        with pytest.raises(
            LayoutMismatch, match=r"has no trainable weights|weight_\d of Network (is empty|has the dtype)"
        ):
            Layout.of(model)
        return
    layout = Layout.of(model)
    assert Layout.from_list(layout.to_list()) == layout
    flat = load(save({"weights": layout.read(model)}))["weights"]
    layout.write(model, 2 * flat)
    assert torch.equal(layout.read(model), 2 * flat)


def lazy():
    return nn.Sequential(nn.LazyLinear(3))


def sparse():
    model = nn.Linear(2, 3)
    model.weight = nn.Parameter(torch.eye(3, 2).to_sparse())
    return model


def encoded():
    from torch.testing._internal.two_tensor import TwoTensor

    model = nn.Linear(2, 3)
    model.weight = nn.Parameter(TwoTensor(torch.zeros(3, 2), torch.zeros(3, 2)))
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lazy, "0.weight of Sequential is lazy"),
        (sparse, "weight of Linear is sparse"),
        (encoded, "weight of Linear is a TwoTensor"),
        (
            lambda: nn.Linear(2, 3, dtype=torch.complex64),
            r"weight of Linear has the dtype torch.complex64.*view_as_real",
        ),
        (lambda: nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 0)), "1.weight of Sequential is empty"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules", "ignore:Initializing zero-element")
def test_weights_that_cannot_be_recorded_are_refused_by_name_before_the_first_step(build, message):
    model = build()
    with pytest.raises(LayoutMismatch, match=message):
        Layout.of(model)
    with pytest.raises(LayoutMismatch, match=message):
        Nowcast(torch.optim.SGD(model.parameters(), lr=0.1), model, get_optimizer_model("Hold"), max_overhead=None)


class Odd(nn.Linear):
    """Complex, empty, integer and non-persistent buffers, and extra state on request."""

    def __init__(self, extra=None):
        super().__init__(2, 3)
        self.register_buffer("frequencies", torch.ones(3, dtype=torch.complex64))
        self.register_buffer("nothing", torch.zeros(0))
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("cache", torch.ones(2).to_sparse(), persistent=False)
        self.extra = extra

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


def test_buffers_of_every_kind_are_saved_and_extra_state_is_refused_by_name(tmp_path):
    model, again = Odd(torch.ones(2)), Odd(torch.zeros(2))
    save_model_weights(model, tmp_path / "odd.safetensors")
    load_model_weights(again, tmp_path / "odd.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(LayoutMismatch, match=r"_extra_state of Odd is a dict, the extra state of a module"):
        save_model_weights(Odd({"calls": 3}), tmp_path / "odd.safetensors")


def test_integer_quantised_and_other_weights_that_do_not_train_do_not_matter():
    model = nn.Linear(2, 3)
    model.register_parameter("codes", nn.Parameter(torch.zeros(4, dtype=torch.int8), requires_grad=False))
    model.register_parameter("nothing", nn.Parameter(torch.zeros(0), requires_grad=False))
    assert Layout.of(model).size == 9
