"""The operators that a backend implements, for tensors on a GPU: checks, outputs, launches.

The checks are those of ``gankernels._checks`` and the outputs those of the Meta kernels, written
again in Python: calling the Meta kernels would convert every argument at every call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gankernels import _checks as check
from gankernels.reference import accumulation_dtype
from gankernels.triton import layers, scalar_losses
from gankernels.triton.distribution_losses import (
    Batch,
    Call,
    divergence,
    is_shared,
    of_each_row,
    softmax_pair,
)
from gankernels.triton.launching import MEAN, NONE, SUM, on_device_of

Outputs = tuple[Tensor, Tensor, Tensor]


# --- outputs -------------------------------------------------------------------------------------


def _row_losses(logits: Tensor, dim: int, reduction: int) -> Tensor:
    shape = [size for d, size in enumerate(logits.shape) if d != dim] if reduction == NONE else []
    dtype = accumulation_dtype(logits.dtype)
    return torch.empty(shape, dtype=dtype, device=logits.device)


def _gradient(like: Tensor, wanted: bool) -> Tensor:
    """Dense, in the layout of ``like`` where that is dense itself; without elements if not wanted."""
    x = like.detach()
    return torch.empty_like(x) if wanted else torch.empty(0, dtype=x.dtype, device=x.device)


def _check_reduction(reduction: int) -> None:
    if reduction not in (NONE, MEAN, SUM):
        raise ValueError(f"reduction must be 0 (none), 1 (mean) or 2 (sum), got {reduction}")


# --- losses over distributions -------------------------------------------------------------------


def _targets(logits: Tensor, dim: int, *targets: Tensor | None) -> list[Tensor]:
    """P and M of one batch, both shared as (K,) or both one per row."""
    given = [t.detach() for t in targets if t is not None]
    if all(is_shared(t, dim) for t in given):
        given = [t.reshape(-1) for t in given]
    else:
        given = [of_each_row(t, logits, dim) for t in given]
    return given


@on_device_of(0)
def softmax_kl(
    logits: Tensor,
    target: Tensor,
    dim: int,
    reduction: int,
    logits_grad: bool,
    target_grad: bool,
    fold_mean: bool,
    grad_scale: float,
) -> Outputs:
    _check_reduction(reduction)
    dim = check.check_logits("logits", logits, dim)
    check.check_target("target", target, "logits", logits, dim)
    if target_grad:
        _check_target_gradient(target, logits)
    loss = _row_losses(logits, dim, reduction)
    gradients = [_gradient(logits, logits_grad), _gradient(target, target_grad)]
    call = Call(dim, reduction, fold_mean, grad_scale)
    given = [target.detach()] if target_grad else _targets(logits, dim, target)
    divergence(call, loss, True, False, Batch(dim, [logits.detach()], given, gradients))
    return loss, gradients[0], gradients[1]


def _check_target_gradient(target: Tensor, logits: Tensor) -> None:
    if target.shape != logits.shape:
        raise ValueError(
            f"target must have the shape of logits, {list(logits.shape)}, where its gradient is "
            f"asked for, got {list(target.shape)}"
        )
    if target.dtype not in (logits.dtype, accumulation_dtype(logits.dtype)):
        raise TypeError(
            "target must have the dtype of logits or of the loss where its gradient is asked for, "
            f"got {target.dtype}"
        )


@on_device_of(0)
def softmax_kl_logits(
    p_logits: Tensor,
    q_logits: Tensor,
    dim: int,
    reduction: int,
    p_grad: bool,
    q_grad: bool,
    fold_mean: bool,
    grad_scale: float,
) -> Outputs:
    _check_reduction(reduction)
    dim = check.check_logits("p_logits", p_logits, dim)
    check.check_floating("q_logits", q_logits)
    check.check_same_device("p_logits", p_logits, "q_logits", q_logits)
    check.check_same_dtype("p_logits", p_logits, "q_logits", q_logits)
    check.check_same_shape("p_logits", p_logits, "q_logits", q_logits)
    loss = _row_losses(q_logits, dim, reduction)
    gradients = [_gradient(p_logits, p_grad), _gradient(q_logits, q_grad)]
    batch = Batch(dim, [p_logits.detach(), q_logits.detach()], [], gradients)
    softmax_pair(Call(dim, reduction, fold_mean, grad_scale), loss, batch)
    return loss, gradients[0], gradients[1]


@on_device_of(0)
def realness_d_loss(
    real_logits: Tensor,
    fake_logits: Tensor,
    real_anchor: Tensor,
    fake_anchor: Tensor,
    dim: int,
    reduction: int,
    real_grad: bool,
    fake_grad: bool,
    fold_mean: bool,
    grad_scale: float,
) -> Outputs:
    _check_reduction(reduction)
    dim = check.check_logits("real_logits", real_logits, dim)
    check.check_floating("fake_logits", fake_logits)
    check.check_same_device("real_logits", real_logits, "fake_logits", fake_logits)
    check.check_same_dtype("real_logits", real_logits, "fake_logits", fake_logits)
    check.check_same_ndim("real_logits", real_logits, "fake_logits", fake_logits)
    check.check_same_classes("real_logits", real_logits, "fake_logits", fake_logits, dim)
    if reduction == NONE:
        check.check_same_shape("real_logits", real_logits, "fake_logits", fake_logits)
    check.check_target("real_anchor", real_anchor, "real_logits", real_logits, dim)
    check.check_target("fake_anchor", fake_anchor, "fake_logits", fake_logits, dim)
    loss = _row_losses(real_logits, dim, reduction)
    gradients = [_gradient(real_logits, real_grad), _gradient(fake_logits, fake_grad)]
    real_targets = _targets(real_logits, dim, real_anchor)
    fake_targets = _targets(fake_logits, dim, fake_anchor)
    # One kernel reads both: of one kind, one dtype.
    if is_shared(real_anchor, dim) != is_shared(fake_anchor, dim):
        real_targets = [of_each_row(real_targets[0], real_logits, dim)]
        fake_targets = [of_each_row(fake_targets[0], fake_logits, dim)]
    if real_anchor.dtype != fake_anchor.dtype:
        real_targets[0], fake_targets[0] = (
            t.to(accumulation_dtype(real_logits.dtype)) for t in (real_targets[0], fake_targets[0])
        )
    real = Batch(dim, [real_logits.detach()], real_targets, gradients[:1])
    fake = Batch(dim, [fake_logits.detach()], fake_targets, gradients[1:])
    divergence(Call(dim, reduction, fold_mean, grad_scale), loss, True, False, real, fake)
    return loss, gradients[0], gradients[1]


def _required(name: str, value: Tensor | None, objective: int) -> Tensor:
    check.check_required(name, value, objective)
    assert value is not None
    return value


@on_device_of(1)
def realness_g_loss(
    real_logits: Tensor | None,
    fake_logits: Tensor,
    real_anchor: Tensor | None,
    fake_anchor: Tensor | None,
    objective: int,
    dim: int,
    reduction: int,
    real_grad: bool,
    fake_grad: bool,
    fold_mean: bool,
    grad_scale: float,
) -> Outputs:
    check.check_objective(objective)
    _check_reduction(reduction)
    dim = check.check_logits("fake_logits", fake_logits, dim)
    minus = _required("fake_anchor", fake_anchor, objective)
    check.check_target("fake_anchor", minus, "fake_logits", fake_logits, dim)
    loss = _row_losses(fake_logits, dim, reduction)
    call = Call(dim, reduction, fold_mean, grad_scale)
    q_gradient = _gradient(fake_logits, fake_grad)
    if objective == 2:
        real = _required("real_logits", real_logits, objective)
        check.check_floating("real_logits", real)
        check.check_same_device("real_logits", real, "fake_logits", fake_logits)
        check.check_same_dtype("real_logits", real, "fake_logits", fake_logits)
        check.check_same_shape("real_logits", real, "fake_logits", fake_logits)
        gradients = [_gradient(real, real_grad), q_gradient]
        targets = _targets(fake_logits, dim, minus)
        logits = [real.detach(), fake_logits.detach()]
        softmax_pair(call, loss, Batch(dim, logits, targets, gradients))
        return loss, gradients[0], q_gradient
    positive = None
    if objective == 3:
        positive = _required("real_anchor", real_anchor, objective)
        check.check_target("real_anchor", positive, "fake_logits", fake_logits, dim)
    batch = Batch(
        dim, [fake_logits.detach()], _targets(fake_logits, dim, positive, minus), [q_gradient]
    )
    divergence(call, loss, positive is not None, True, batch)
    return loss, _gradient(fake_logits, False), q_gradient


# --- scalar losses -------------------------------------------------------------------------------


@on_device_of(1)
def scalar_loss(
    real_logits: Tensor | None,
    fake_logits: Tensor,
    loss: str,
    label_smoothing: float,
    reduction: int,
    real_grad: bool,
    fake_grad: bool,
    fold_mean: bool,
    grad_scale: float,
) -> Outputs:
    has_real = scalar_losses.find(loss).real is not None
    _check_reduction(reduction)
    if has_real:
        if real_logits is None:
            raise ValueError("real_logits is required by this loss, got None")
        check.check_floating("real_logits", real_logits)
    check.check_floating("fake_logits", fake_logits)
    dtype = accumulation_dtype(fake_logits.dtype)
    fake = fake_logits.detach()
    if reduction == NONE:
        value = torch.empty_like(fake, dtype=dtype)
    else:
        value = torch.empty((), dtype=dtype, device=fake.device)
    gradient = _gradient(fake, fake_grad)
    batches = [scalar_losses.Batch(fake, gradient, value, reduction)]
    real_gradient = _gradient(fake, False)
    if has_real:
        assert real_logits is not None
        check.check_same_dtype("real_logits", real_logits, "fake_logits", fake_logits)
        check.check_same_device("real_logits", real_logits, "fake_logits", fake_logits)
        if reduction == NONE:
            check.check_same_shape("real_logits", real_logits, "fake_logits", fake_logits)
        real_gradient = _gradient(real_logits, real_grad)
        batch = scalar_losses.Batch(real_logits.detach(), real_gradient, value, reduction)
        batches.insert(0, batch)
    scalar_losses.scalar(loss, label_smoothing, reduction, fold_mean, grad_scale, value, *batches)
    return value, real_gradient, gradient


# --- layers --------------------------------------------------------------------------------------


@on_device_of(0)
def scale_gradient(gradient: Tensor, grad_output: Tensor, dim: int, rows: int) -> Tensor:
    return layers.scale([gradient], grad_output, dim, [rows])[0]


@on_device_of(0)
def scale_gradients(
    gradient: Tensor,
    other_gradient: Tensor,
    grad_output: Tensor,
    dim: int,
    rows: int,
    other_rows: int,
) -> tuple[Tensor, Tensor]:
    both = [gradient, other_gradient]
    if gradient.dtype == other_gradient.dtype:
        first, second = layers.scale(both, grad_output, dim, [rows, other_rows])
        return first, second
    return (
        layers.scale(both[:1], grad_output, dim, [rows])[0],
        layers.scale(both[1:], grad_output, dim, [other_rows])[0],
    )


@on_device_of(0)
def resample_forward(mu_logvar: Tensor, noise: Tensor, dim: int) -> Tensor:
    statistics = mu_logvar.detach()
    z = torch.empty(noise.shape, dtype=statistics.dtype, device=statistics.device)
    layers.resample(statistics, noise.detach(), z, dim % statistics.ndim)
    return z


@on_device_of(1)
def resample_backward(grad: Tensor, mu_logvar: Tensor, saved: Tensor, dim: int) -> Tensor:
    statistics = mu_logvar.detach()
    out = torch.empty(statistics.shape, dtype=statistics.dtype, device=statistics.device)
    layers.resample_backward(grad, statistics, saved, out, dim % statistics.ndim)
    return out
