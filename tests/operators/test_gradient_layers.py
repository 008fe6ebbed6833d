"""The gradient layers and everybody's memory: whose it is, who writes to it when, and what was saved of it."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gankernels as gk
from gankernels import reference

SHAPE = (4, 3, 5, 5)
Layer = Callable[[Tensor], Tensor]


def _deferred(x: Tensor) -> Tensor:
    factor = gk.DeferredGradientScale()
    y = factor(x)
    factor.set(torch.tensor(-2.0))
    return y


# The factor of each is -2.
LAYERS: dict[str, Layer] = {
    "gradient_reversal": lambda x: gk.gradient_reversal(x, 2.0),
    "gradient_scale": lambda x: gk.gradient_scale(x, -2.0),
    "gradient_scale per sample": lambda x: gk.gradient_scale(x, torch.full((len(x),), -2.0)),
    "GradientReversal": lambda x: gk.GradientReversal(2.0)(x),
    "GradientReversal with a schedule": lambda x: _scheduled()(x),
    "DeferredGradientScale": _deferred,
    "reference.gradient_reversal": lambda x: reference.gradient_reversal(x, 2.0),
    "reference.gradient_scale": lambda x: reference.gradient_scale(x, -2.0),
}


def _scheduled() -> gk.GradientReversal:
    layer = gk.GradientReversal(2.0, schedule="linear", steps=1)
    layer.advance()
    return layer


def test_every_gradient_layer_is_in_the_table() -> None:
    public = {name for name in vars(gk) if "Gradient" in name or name.startswith("gradient_")}
    public.remove("gradient_penalty")
    assert public == {name.split()[0] for name in LAYERS if not name.startswith("reference")}


# ---- sources of memory ---------------------------------------------------------------------------

Source = Callable[[np.ndarray, Path], tuple[Tensor, Callable[[], Any]]]
SOURCES: dict[str, Source] = {}


def source(function: Source) -> Source:
    """Makes a tensor with given values, and a function that reads its memory by another way."""
    SOURCES[function.__name__.strip("_")] = function
    return function


def _at_address(x: Tensor) -> Callable[[], np.ndarray]:
    address = x.data_ptr()
    kept = x.untyped_storage()  # or the address could be somebody else's by the time it is read

    def read() -> np.ndarray:
        assert kept is not None
        raw = (ctypes.c_float * x.numel()).from_address(address)
        return np.ctypeslib.as_array(raw).reshape(x.shape).copy()

    return read


@source
def _torch(values, tmp_path):
    x = torch.tensor(values)
    return x, _at_address(x)


@source
def _numpy(values, tmp_path):
    array = values.copy()
    return torch.from_numpy(array), lambda: array


@source
def _viewed_by_numpy(values, tmp_path):
    x = torch.tensor(values)
    return x, x.numpy


@source
def _shared(values, tmp_path):
    x = torch.tensor(values).share_memory_()
    return x, _at_address(x)


@source
def _dlpack(values, tmp_path):
    array = values.copy()
    return torch.from_dlpack(array), lambda: array


@source
def _frombuffer(values, tmp_path):
    buffer = bytearray(values.tobytes())
    x = torch.frombuffer(buffer, dtype=torch.float32).reshape(SHAPE)
    return x, lambda: np.frombuffer(buffer, np.float32).reshape(SHAPE)


@source
def _from_file(values, tmp_path):
    path = tmp_path / "values.bin"
    values.tofile(path)
    x = torch.from_file(str(path), shared=True, size=values.size, dtype=torch.float32)
    return x.reshape(SHAPE), lambda: np.fromfile(path, np.float32).reshape(SHAPE)


@source
def _mmap(values, tmp_path):
    path = tmp_path / "values.bin"
    values.tofile(path)
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    x = torch.frombuffer(memory, dtype=torch.float32).reshape(SHAPE)
    return x, lambda: np.frombuffer(memory, np.float32).reshape(SHAPE)


@source
def _loaded_by_mmap(values, tmp_path):
    torch.save(torch.tensor(values), tmp_path / "values.pt")
    x = torch.load(tmp_path / "values.pt", mmap=True, weights_only=True)
    return x, _at_address(x)


@source
def _view(values, tmp_path):
    base = torch.zeros(2, *SHAPE)
    base[1] = torch.tensor(values)
    return base[1], lambda: base[1].numpy()


@source
def _channels_last(values, tmp_path):
    x = torch.tensor(values).to(memory_format=torch.channels_last)
    return x, lambda: x.detach().numpy()


@pytest.fixture(params=SOURCES)
def memory(request, tmp_path) -> tuple[Tensor, Callable[[], Any], np.ndarray]:
    values = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    x, alias = SOURCES[request.param](values, tmp_path)
    return x, alias, values


@pytest.fixture(params=LAYERS)
def layer(request) -> Layer:
    return LAYERS[request.param]


MODES = {"train": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("after", [None, "relu", "input"])
def test_the_input_and_its_aliases_never_notice(layer, memory, mode, after) -> None:
    x, alias, values = memory
    with MODES[mode]():
        y = layer(x)
        assert torch.equal(y, torch.tensor(values))
        if after == "relu":
            nn.functional.relu_(y)
    if after == "input":
        x.add_(1)  # whoever knows the memory must see this write, and the output must not
        values = values + 1
        assert torch.equal(y, torch.tensor(values - 1)) or torch.equal(y + 1, torch.tensor(values))
    np.testing.assert_array_equal(alias(), values)
    np.testing.assert_array_equal(x.numpy(), values)
    if after == "relu":
        np.testing.assert_array_equal(y.numpy(), np.maximum(values, 0))


def test_gradients_from_every_source(layer, memory) -> None:
    x, _, values = memory
    weight = torch.randn(SHAPE)
    leaf = x.requires_grad_()
    (nn.functional.relu_(layer(leaf)) * weight).sum().backward()
    assert torch.equal(leaf.grad, -2 * weight * (torch.tensor(values) > 0))
    np.testing.assert_array_equal(x.detach().numpy(), values)


@pytest.mark.processes
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_batches_of_loader_workers(start: str) -> None:
    images = torch.randn(4, *SHAPE[1:])
    loader = DataLoader(
        TensorDataset(images), batch_size=4, num_workers=1, multiprocessing_context=start
    )
    ((batch,),) = list(loader)
    for layer in LAYERS.values():
        assert torch.equal(nn.functional.relu_(layer(batch)), images.relu())
    assert torch.equal(batch, images)


# ---- in-place layers around the layer, and what the layer before has saved ------------------------


def _batch_norm() -> nn.Module:
    return nn.BatchNorm2d(3)


def _conv() -> nn.Module:
    return nn.Conv2d(3, 3, 3, padding=1)


BEFORE: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "batch norm": _batch_norm,
    "conv": _conv,
    "none": nn.Identity,
}


def _branches(layer: Layer, before: str, in_place: str) -> list[Tensor]:
    """A layer, the gradient layer, and a second reader of what stands between: all gradients and values."""
    torch.manual_seed(0)
    network = BEFORE[before]()
    x = torch.randn(SHAPE, requires_grad=True)
    inplace_before, inplace_after = in_place in ("before", "both"), in_place in ("after", "both")
    hidden = network(x) if before != "none" else x * 1
    if inplace_before:
        hidden = nn.functional.leaky_relu_(hidden + 0, 0.2)
    y = layer(hidden)
    y = nn.functional.relu_(y) if inplace_after else nn.functional.relu(y)
    second_head = (hidden * torch.linspace(-1, 1, hidden.numel()).reshape(hidden.shape)).sum()
    ((y * y).sum() + second_head).backward()
    return [x.grad, hidden.detach(), y.detach(), *(p.grad for p in network.parameters())]


class _PlainScale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g * -2.0


@pytest.mark.parametrize("in_place", ["none", "before", "after", "both"])
@pytest.mark.parametrize("before", BEFORE)
def test_in_place_layers_and_saved_outputs(layer, before: str, in_place: str) -> None:
    ours = _branches(layer, before, in_place)
    # The truth writes nothing in place after the layer, so nothing saved can have been overwritten.
    truth = _branches(
        _PlainScale.apply, before, "before" if in_place in ("before", "both") else "none"
    )
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_a_leaf_is_not_written_through(layer) -> None:
    leaf = torch.randn(SHAPE, requires_grad=True)
    before = leaf.detach().clone()
    layer(leaf).mul_(3).sum().backward()
    assert torch.equal(leaf.detach(), before)
    assert torch.equal(leaf.grad, torch.full(SHAPE, -6.0))


def test_a_write_to_the_input_between_forward_and_backward(layer) -> None:
    x = torch.randn(SHAPE, requires_grad=True)
    hidden = x * 1
    kept = hidden.detach().clone()
    y = layer(hidden)
    hidden.mul_(5)  # recorded by autograd for hidden, and no business of y
    assert torch.equal(y.detach(), kept)
    (y * y).sum().backward()
    assert torch.equal(x.grad, -4 * kept)


# ---- alpha, state, tracing -----------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [2, 2.0, np.float32(2), torch.tensor(2.0), torch.tensor([2.0])])
def test_forms_of_alpha(alpha) -> None:
    for reverse in (gk.gradient_reversal, reference.gradient_reversal):
        x = torch.ones(3, requires_grad=True)
        reverse(x, alpha).sum().backward()
        assert x.grad.tolist() == [-2.0] * 3
    assert gk.GradientReversal(alpha).alpha == 2.0


@pytest.mark.parametrize("alpha", [None, "0.3", [1.0]])
def test_what_is_no_alpha(alpha) -> None:
    with pytest.raises(TypeError, match="alpha must be a number or a tensor with one element, got"):
        gk.GradientReversal(alpha)


def test_a_constant_layer_has_no_state_and_takes_the_place_of_others() -> None:
    layers = [nn.Linear(2, 2), gk.GradientReversal(0.5)]
    network = nn.Sequential(*layers)
    assert set(network.state_dict()) == {"0.weight", "0.bias"}
    network.load_state_dict(nn.Sequential(nn.Linear(2, 2), nn.Identity()).state_dict())
    # A checkpoint of version 0.1 holds the buffers of the constant layer.
    old = dict(network.state_dict())
    old |= {"1.step": torch.tensor(3), "1.current_alpha": torch.tensor(0.5)}
    network.load_state_dict(old)
    assert network[1].alpha == 0.5
    with pytest.raises(RuntimeError, match="Unexpected key"):
        network.load_state_dict(old | {"1.other": torch.tensor(0)})


@pytest.mark.parametrize("schedule", ["linear", "ganin"])
def test_an_assigned_alpha_is_what_the_state_says(schedule: str) -> None:
    layer = gk.GradientReversal(1.0, schedule=schedule, steps=4)
    layer.advance(2)
    before = layer.state_dict()["current_alpha"].item()
    layer.alpha = 0.7
    assert layer.state_dict()["current_alpha"].item() == pytest.approx(0.7 * before)
    x = torch.ones(1, requires_grad=True)
    layer(x).backward()
    assert x.grad.item() == pytest.approx(-0.7 * before)
    with pytest.raises(ValueError, match="alpha must be finite, got inf"):
        layer.alpha = float("inf")


@pytest.mark.parametrize("name", ["gradient_reversal", "gradient_scale", "GradientReversal"])
def test_symbolic_trace(name: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = gk.GradientReversal(2.0)

        def forward(self, x: Tensor) -> Tensor:
            return (self.layer if name == "GradientReversal" else LAYERS[name])(x * 1) * 3

    traced = torch.fx.symbolic_trace(Net())
    x = torch.ones(2, requires_grad=True)
    traced(x).sum().backward()
    assert x.grad.tolist() == [-6.0, -6.0]


def test_symbolic_trace_keeps_the_schedule_and_the_mode() -> None:
    network = nn.Sequential(
        gk.GradientReversal(2.0, schedule="linear", steps=2), gk.FeatureResampling()
    )
    traced = torch.fx.symbolic_trace(network)
    traced.get_submodule("0").advance()
    x = torch.zeros(2, 4, requires_grad=True)
    traced.eval()
    out = traced(x)
    assert torch.equal(out, torch.zeros(2, 2))  # the means, without noise
    out.sum().backward()
    assert x.grad[0].tolist() == [-1.0, -1.0, 0.0, 0.0]


def test_a_deferred_factor_cannot_be_traced_symbolically() -> None:
    with pytest.raises(TypeError, match="x must be a Tensor, got Proxy"):
        torch.fx.symbolic_trace(_deferred)


def _ratio_step(images: Tensor, real_logits: Tensor) -> Tensor:
    factor = gk.DeferredGradientScale()
    logits = factor(images * 1).sum(1)
    factor.set(gk.nonsaturating_ratio(logits))
    return gk.logistic_d_loss(real_logits, logits)


@pytest.mark.dynamo
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_deferred_factor_in_one_compiled_graph(dtype: torch.dtype) -> None:
    compiled = torch.compile(_ratio_step, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        images = torch.randn(4, 3, dtype=dtype, requires_grad=True)
        real_logits = torch.randn(4, dtype=dtype)
        (expected,) = torch.autograd.grad(_ratio_step(images, real_logits), images)
        (got,) = torch.autograd.grad(compiled(images, real_logits), images)
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.dynamo
def test_a_compiled_factor_that_was_never_set_is_no_number() -> None:
    def forgotten(x: Tensor) -> Tensor:
        return gk.DeferredGradientScale()(x * 1).sum()

    x = torch.ones(2, requires_grad=True)
    torch.compile(forgotten, fullgraph=True, backend="aot_eager")(x).backward()
    assert x.grad.isnan().all()
