"""Weights and masks of rows: what they count for, and that nothing of a row left out is seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from backends import in_turn
from torch import Tensor

import gankernels as gk
from gankernels import value_and_grad

NAN, INF = float("nan"), float("inf")
SHAPES = {"rows": ((5, 7), 1), "sequences": ((3, 4, 6), -1), "maps": ((2, 5, 3, 4), 1)}
REDUCTIONS = ("mean", "batchmean", "sum", "none")
every_shape = pytest.mark.parametrize(("shape", "dim"), SHAPES.values(), ids=SHAPES)


def rows_of(shape: tuple[int, ...], dim: int) -> list[int]:
    return [size for d, size in enumerate(shape) if d != dim % len(shape)]


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).to(dtype)


def by_hand(rows: Tensor, reduction: str, weight: Tensor | None, mask: Tensor | None) -> Tensor:
    """From the losses of the rows, those left out dropped by their places."""
    if weight is not None:
        rows = rows * weight.reshape(list(weight.shape) + [1] * (rows.ndim - weight.ndim))
    kept = torch.ones_like(rows, dtype=torch.bool)
    if mask is not None:
        kept = mask.reshape(list(mask.shape) + [1] * (rows.ndim - mask.ndim)).expand(rows.shape)
    if reduction == "none":
        return rows * kept
    total = rows[kept].sum()
    if reduction == "sum":
        return total
    return total / (rows.shape[0] if reduction == "batchmean" else int(kept.sum()))


@every_shape
@pytest.mark.parametrize("given", ["weight", "mask", "both", "one a sample"])
def test_rows_count_what_they_are_told(shape: tuple[int, ...], dim: int, given: str) -> None:
    for reduction in in_turn(REDUCTIONS):
        compare_with_rows(shape, dim, reduction, given)


def compare_with_rows(shape: tuple[int, ...], dim: int, reduction: str, given: str) -> None:
    torch.manual_seed(0)
    a, b, target = draw(*shape), draw(*shape), draw(*shape).softmax(dim)
    rows = rows_of(shape, dim)[: 1 if given == "one a sample" else None]
    weight = torch.rand(rows, dtype=torch.float64) if given != "mask" else None
    mask = (torch.arange(torch.Size(rows).numel()) % 3 != 1).reshape(rows)
    options: dict[str, Any] = {"weight": weight, "mask": None if given == "weight" else mask}
    settings: dict[str, Any] = {"dim": dim, "temperature": 1.5, "scale": 0.7}
    for loss, arguments in ((gk.softmax_kl, (a, target)), (gk.softmax_kl_logits, (a, b))):
        results = []
        for composed in (False, True):
            leaves = [x.clone().requires_grad_() for x in arguments]
            if composed:
                losses = loss(*leaves, reduction="none", **settings)
                value = by_hand(losses, reduction, **options)
            else:
                value = loss(*leaves, reduction=reduction, **options, **settings)
            cotangent = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype)
            gradients = torch.autograd.grad(value, leaves, cotangent.reshape(value.shape))
            results.append([value, *gradients])
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@every_shape
def test_nothing_of_a_row_left_out_is_seen(
    shape: tuple[int, ...], dim: int, dtype: torch.dtype
) -> None:
    """Not its NaN, not its infinities, to any order."""
    for reduction in in_turn(REDUCTIONS):
        leave_out(shape, dim, reduction, dtype)


def leave_out(shape: tuple[int, ...], dim: int, reduction: str, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    rows = rows_of(shape, dim)
    mask = (torch.arange(torch.Size(rows).numel()) % 3 != 1).reshape(rows)
    weight = torch.rand(rows)
    p, q = draw(*shape, dtype=dtype), draw(*shape, dtype=dtype)
    results = []
    for bad in (0.0, NAN, INF, -INF):
        left_out = ~mask.unsqueeze(dim)
        leaves = [x.masked_fill(left_out, bad).requires_grad_() for x in (p, q)]
        w = weight.clone().requires_grad_()
        options: dict[str, Any] = {"dim": dim, "reduction": reduction, "weight": w, "mask": mask}
        total = gk.softmax_kl_logits(*leaves, **options).sum()
        total = total + gk.softmax_kl(leaves[0], q.softmax(dim), **options).sum()
        first = torch.autograd.grad(total, [*leaves, w], retain_graph=True)
        again = torch.autograd.grad(total, [*leaves, w], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in again), [*leaves, w])
        results.append([total, *first, *second])
        for gradient in (*first[:2], *second[:2]):
            assert bool((gradient == 0)[left_out.expand(shape)].all())
    for found in results[1:]:
        for one, other in zip(found, results[0], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("reduction", ["mean", "batchmean", "sum"])
def test_no_row_kept_is_no_loss(reduction: str) -> None:
    z = torch.full((4, 3), NAN, requires_grad=True)
    mask = torch.zeros(4, dtype=torch.bool)
    loss = gk.softmax_kl(z, torch.full((3,), 1 / 3), reduction=reduction, mask=mask)
    loss.backward()
    assert loss.item() == 0
    assert z.grad is not None
    assert torch.equal(z.grad, torch.zeros(4, 3))


def test_weights_have_gradients_and_mixed_derivatives() -> None:
    """Also where a weight is 0: the derivative to it is the row's loss, and so is that of the gradient."""
    torch.manual_seed(2)
    z, target = draw(4, 5).requires_grad_(), draw(4, 5).softmax(1)
    w = torch.tensor([0.0, 1.0, 0.5, -2.0], dtype=torch.float64, requires_grad=True)

    def loss(z: Tensor, w: Tensor) -> Tensor:
        return gk.softmax_kl(z, target, weight=w, temperature=0.8, scale=1.3)

    assert torch.autograd.gradcheck(loss, (z, w))
    assert torch.autograd.gradgradcheck(loss, (z, w))


@pytest.mark.parametrize("reduction", ["mean", "batchmean", "sum"])
def test_each_batch_of_a_discriminator_loss_has_its_own(reduction: str) -> None:
    torch.manual_seed(3)
    real, fake = draw(5, 6).requires_grad_(), draw(7, 6).requires_grad_()
    anchors = draw(6).softmax(0), draw(6).softmax(0)
    weight, mask = torch.rand(5), torch.arange(7) % 2 == 0
    options: dict[str, Any] = {"reduction": reduction, "scale": 0.5}
    found = gk.realness_d_loss(real, fake, *anchors, **options, real_weight=weight, fake_mask=mask)
    expected = gk.softmax_kl(real, anchors[0], **options, weight=weight)
    expected = expected + gk.softmax_kl(fake, anchors[1], **options, mask=mask)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    value, gradients = value_and_grad(gk.realness_d_loss)(
        real, fake, *anchors, **options, real_weight=weight, fake_mask=mask, grad_scale=2.0
    )
    torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=1e-12)
    for got, g in zip(gradients, torch.autograd.grad(expected, (real, fake)), strict=True):
        torch.testing.assert_close(got, 2 * g, rtol=1e-12, atol=1e-12)


@pytest.mark.dynamo
def test_weighted_losses_compile_and_transform() -> None:
    torch.manual_seed(4)
    z, other, weight = draw(2, 4, 5), draw(2, 4, 5), torch.rand(2, 4, dtype=torch.float64)
    mask = torch.rand(2, 4) < 0.7

    def loss(z: Tensor, weight: Tensor) -> Tensor:
        return gk.softmax_kl_logits(other, z, dim=-1, weight=weight, mask=mask, scale=2.0)

    expected = torch.func.grad(loss, (0, 1))(z, weight)
    leaves = z.clone().requires_grad_(), weight.clone().requires_grad_()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for value in (loss(*leaves), compiled(*leaves)):
        for found, g in zip(torch.autograd.grad(value, leaves), expected, strict=True):
            torch.testing.assert_close(found, g, rtol=1e-10, atol=1e-12)
