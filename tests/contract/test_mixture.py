"""The Jensen-Shannon divergence where its quotients are near one, enormous or nothing, on every backend."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import gankernels as gk
from contract.common import dtype_name
from gankernels.testing import differentiate

pytestmark = pytest.mark.compiled
# Rows side by side in memory, in registers, and beyond them.
SHAPES = [(3, 4), (2, 5, 7), (2, 9001)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def value_and_gradients(p: Tensor, q: Tensor, beta: float) -> tuple[Tensor, ...]:
    arguments = {"p_logits": p, "q_logits": q, "beta": beta, "reduction": "sum"}
    value, gradients = differentiate(gk.js_divergence, arguments, ("p_logits", "q_logits"))
    return value, *gradients.values()


def draw(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


@every_shape
def test_the_same_distribution_twice(backend: str, shape: tuple[int, ...]) -> None:
    """Exactly nothing, and not the rounding of its logarithms."""
    z = draw(shape)
    for found in value_and_gradients(z, z, 0.5):
        assert torch.equal(found, torch.zeros_like(found))


@every_shape
def test_distributions_near_each_other(backend: str, shape: tuple[int, ...]) -> None:
    """Gradients of p to the digits that its difference from q has: p (1 - q / p) / 4 in first order."""
    p = draw(shape)
    q = p + 1e-3 * draw(shape).flip(0)
    _, to_p, to_q = value_and_gradients(p, q, 0.5)
    exact = value_and_gradients(p.double(), q.double(), 0.5)
    # Of two probabilities, their quotient and a sum; logarithms of 9001 classes, 9 and more, lose more.
    allowed = 3 * torch.finfo(torch.float32).eps * p.double().softmax(1)
    for found, wanted in zip((to_p, to_q), exact[1:], strict=True):
        assert bool(((found - wanted).abs() <= allowed).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=dtype_name)
@pytest.mark.parametrize("gap", [85.0, 90.0, 100.0, 103.0, 710.0, 740.0])
def test_probabilities_that_vanish(backend: str, gap: float, dtype: torch.dtype) -> None:
    """Subnormal ones beside others that are whole, in both places: log 2, and no gradient."""
    p = torch.tensor([[0.0, -gap]], dtype=dtype)
    value, to_p, to_q = value_and_gradients(p, p.flip(1), 0.5)
    torch.testing.assert_close(value, torch.tensor(math.log(2), dtype=dtype))
    for found in (to_p, to_q):
        torch.testing.assert_close(found, torch.zeros_like(p), rtol=0, atol=1e-30)


@pytest.mark.parametrize("beta", [1e-320, 1e-50, 1e-30, 1 - 1e-15])
def test_shares_that_vanish(backend: str, beta: float) -> None:
    """In float32 the share itself, or what it leaves the other, may be nothing: so is the loss then."""
    p, q = torch.tensor([[0.0, -200.0, 1.0]]), torch.tensor([[-200.0, 0.0, 1.0]])
    for found in value_and_gradients(p, q, beta):
        torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-12)
