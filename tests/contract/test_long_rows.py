"""Rows of so many classes that they are read in chunks: wherever the maximum and the infinities are."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import gankernels as gk
from gankernels import reference
from gankernels.testing import OPERATORS, Arguments, compare

pytestmark = pytest.mark.backends("cpu", "triton", "cuda")

SOFTMAX_KL = next(row for row in OPERATORS if row.name == "softmax_kl")
SIZES = [4097, 20_001]  # the first one past the limit, and several chunks with a ragged end
INF = math.inf


def rows(classes: int) -> dict[str, Tensor]:
    """One row each."""
    noise = torch.randn(classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slope = torch.linspace(-40, 40, classes, dtype=torch.float64)
    made = {
        "random": noise,
        "rising": slope + noise,
        "falling": noise - slope,
        "one far above": noise.clone(),
        "first chunks of -inf": noise.clone(),
        "last chunks of -inf": noise.clone(),
        "nothing but -inf": torch.full_like(noise, -INF),
        "+inf": noise.clone(),
        "NaN": noise.clone(),
    }
    made["one far above"][classes // 2] = 9000.0
    made["first chunks of -inf"][:2500] = -INF
    made["last chunks of -inf"][1500:] = -INF
    made["+inf"][classes - 1] = INF
    made["NaN"][classes // 2] = math.nan
    return made


def anchor(classes: int, empty: slice) -> Tensor:
    weights = torch.linspace(1, 2, classes, dtype=torch.float64)
    weights[empty] = 0
    return weights / weights.sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("classes", SIZES)
def test_accuracy(classes: int, dtype: torch.dtype) -> None:
    for kind in ("random", "rising", "falling", "one far above"):
        z = rows(classes)[kind].to(dtype)
        arguments: Arguments = {
            "logits": torch.stack([z, z.flip(0)]),
            "target": anchor(classes, slice(0, 0)).to(dtype),
            "dim": 1,
            "reduction": "mean",
        }
        compare(SOFTMAX_KL, arguments, ["logits"])


@pytest.mark.parametrize("empty", ["nowhere", "where -inf is"])
@pytest.mark.parametrize("classes", SIZES)
def test_infinities_and_nan(classes: int, empty: str) -> None:
    """As the formula in float64 has them: 0 * -inf is 0, a bin with mass at -inf costs +inf."""
    spans = {"first chunks of -inf": slice(0, 2500), "last chunks of -inf": slice(1500, None)}
    for kind, z in rows(classes).items():
        target = anchor(
            classes, spans.get(kind, slice(0, 0)) if empty != "nowhere" else slice(0, 0)
        )
        logits = z.float()[None].requires_grad_()
        loss = gk.softmax_kl(logits, target.float(), reduction="none")
        (grad,) = torch.autograd.grad(loss.sum(), logits)
        exact = z.float().double()[None].requires_grad_()
        expected = reference.softmax_kl(exact, target, reduction="none")
        (slope,) = torch.autograd.grad(expected.sum(), exact)
        tight = {"rtol": 1e-5, "atol": 1e-6, "equal_nan": True}
        torch.testing.assert_close(loss.double(), expected, **tight, msg=f"{kind}: loss")
        tight["atol"] = 1e-9
        torch.testing.assert_close(grad.double(), slope, **tight, msg=f"{kind}: gradient")


# Few classes with a row in each lane of full vectors, and rows of whole vectors.
@pytest.mark.parametrize("shape", [(64, 5), (40, 51), (3, 160), (2, 1024), (5, 8, 32)], ids=str)
@pytest.mark.parametrize("empty", [False, True])
def test_minus_infinity_in_full_vectors(shape: tuple[int, ...], empty: bool) -> None:
    """0 * -inf is 0 in every dot product: of the anchor, and of the softmax that stands before the ||."""
    generator = torch.Generator().manual_seed(1)
    q, p = (torch.randn(shape, generator=generator) for _ in range(2))
    q[:, 2] = -INF
    p[:, 3] = -INF
    p[:, 2] = -INF if empty else p[:, 2]
    target = torch.linspace(1, 2, shape[1]) * torch.ones(shape[1])
    target[2] = 0 if empty else target[2]
    target /= target.sum()
    checked = {
        gk.softmax_kl: (q, target),
        gk.softmax_kl_logits: (p, q),
    }
    for function, (first, second) in checked.items():
        got, exact = [], []
        for loss_of, upcast in ((function, False), (getattr(reference, function.__name__), True)):
            inputs = [x.double() if upcast else x.clone() for x in (first, second)]
            leaves = [x.requires_grad_() for x in inputs if x.dim() > 1]
            loss = loss_of(*inputs, reduction="none")
            found = [loss, *torch.autograd.grad(loss.sum(), leaves)]
            (exact if upcast else got).extend(found)
        assert bool(exact[0].isinf().all()) != empty
        # An infinite loss has no gradient to compare.
        for a, b in zip(got, exact, strict=True) if empty else [(got[0], exact[0])]:
            torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6, equal_nan=True)
