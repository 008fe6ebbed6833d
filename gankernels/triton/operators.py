"""The operators that a backend implements, for tensors on a GPU: outputs from C++, launches.

Arguments are checked and outputs allocated where they are for every backend, in ``csrc/operators``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from gankernels import _backend
from gankernels.reference import accumulation_dtype
from gankernels.triton import layers, relativistic, scalar
from gankernels.triton.divergence import (
    Batch,
    Call,
    divergence,
    is_shared,
    of_each_row,
)
from gankernels.triton.launching import on_device_of
from gankernels.triton.replays import replayed
from gankernels.triton.softmax_pair import mixture, softmax_pair

Outputs = tuple[Tensor, Tensor, Tensor]


@cache
def outputs_of(name: str) -> Callable[..., Any]:
    """What checks an operator's arguments and allocates its outputs."""
    bound: Callable[..., Any] = _backend.EXTENSION.bind_outputs(f"gankernels::{name}")
    return bound


def _checked(name: str) -> Callable[..., Any]:
    """``outputs_of`` an operator, bound when it is first called."""
    return lambda *arguments: outputs_of(name)(*arguments)


def _like_gradient(gradient: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(gradient)


def _like_gradients(gradient: Tensor, other_gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(gradient), torch.empty_like(other_gradient)


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
@replayed(_checked("softmax_kl_value_and_grad"))
def softmax_kl(
    logits: Tensor,
    target: Tensor,
    dim: int,
    reduction: int,
    logits_grad: bool,
    target_grad: bool,
    fold_mean: bool,
    grad_scale: float,
    temperature: float = 1.0,
    scale: float = 1.0,
) -> Outputs:
    flags = (logits_grad, target_grad, fold_mean, grad_scale)
    arguments = (logits, target, dim, reduction, *flags, temperature, scale)
    outputs: Outputs = outputs_of("softmax_kl_value_and_grad")(*arguments)
    loss, *gradients = outputs
    call = Call(dim % logits.ndim, reduction, fold_mean, grad_scale, scale)
    given = [target.detach()] if target_grad else _targets(logits, call.dim, target)
    batch = Batch(call.dim, [logits.detach()], given, gradients)
    divergence(call, loss, True, False, batch, temperature=temperature)
    return outputs


@on_device_of(0)
@replayed(_checked("softmax_kl_logits_value_and_grad"))
def softmax_kl_logits(
    p_logits: Tensor,
    q_logits: Tensor,
    dim: int,
    reduction: int,
    p_grad: bool,
    q_grad: bool,
    fold_mean: bool,
    grad_scale: float,
    p_temperature: float = 1.0,
    q_temperature: float = 1.0,
    scale: float = 1.0,
) -> Outputs:
    flags, temperatures = (p_grad, q_grad, fold_mean, grad_scale), (p_temperature, q_temperature)
    arguments = (p_logits, q_logits, dim, reduction, *flags, *temperatures, scale)
    outputs: Outputs = outputs_of("softmax_kl_logits_value_and_grad")(*arguments)
    loss, *gradients = outputs
    call = Call(dim % p_logits.ndim, reduction, fold_mean, grad_scale, scale)
    batch = Batch(call.dim, [p_logits.detach(), q_logits.detach()], [], gradients)
    softmax_pair(call, loss, batch, temperatures)
    return outputs


@on_device_of(0)
@replayed(_checked("js_divergence_value_and_grad"))
def js_divergence(
    p_logits: Tensor,
    q_logits: Tensor,
    beta: float,
    dim: int,
    reduction: int,
    p_grad: bool,
    q_grad: bool,
    fold_mean: bool,
    grad_scale: float,
    temperature: float = 1.0,
    scale: float = 1.0,
) -> Outputs:
    flags = (p_grad, q_grad, fold_mean, grad_scale)
    arguments = (p_logits, q_logits, beta, dim, reduction, *flags, temperature, scale)
    outputs: Outputs = outputs_of("js_divergence_value_and_grad")(*arguments)
    loss, *gradients = outputs
    call = Call(dim % p_logits.ndim, reduction, fold_mean, grad_scale, scale)
    batch = Batch(call.dim, [p_logits.detach(), q_logits.detach()], [], gradients)
    mixture(call, loss, batch, beta, temperature)
    return outputs


@on_device_of(0)
@replayed(_checked("realness_d_loss_value_and_grad"))
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
    scale: float = 1.0,
) -> Outputs:
    tensors = (real_logits, fake_logits, real_anchor, fake_anchor)
    settings = (dim, reduction, real_grad, fake_grad, fold_mean, grad_scale, scale)
    outputs: Outputs = outputs_of("realness_d_loss_value_and_grad")(*tensors, *settings)
    loss, *gradients = outputs
    call = Call(dim % real_logits.ndim, reduction, fold_mean, grad_scale, scale)
    real_targets = _targets(real_logits, call.dim, real_anchor)
    fake_targets = _targets(fake_logits, call.dim, fake_anchor)
    # One kernel reads both: of one kind, one dtype.
    if is_shared(real_anchor, call.dim) != is_shared(fake_anchor, call.dim):
        real_targets = [of_each_row(real_targets[0], real_logits, call.dim)]
        fake_targets = [of_each_row(fake_targets[0], fake_logits, call.dim)]
    if real_anchor.dtype != fake_anchor.dtype:
        real_targets[0], fake_targets[0] = (
            t.to(accumulation_dtype(real_logits.dtype)) for t in (real_targets[0], fake_targets[0])
        )
    real = Batch(call.dim, [real_logits.detach()], real_targets, gradients[:1])
    fake = Batch(call.dim, [fake_logits.detach()], fake_targets, gradients[1:])
    divergence(call, loss, True, False, real, fake)
    return outputs


@on_device_of(1)
@replayed(_checked("realness_g_loss_value_and_grad"))
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
    scale: float = 1.0,
) -> Outputs:
    tensors = (real_logits, fake_logits, real_anchor, fake_anchor)
    settings = (objective, dim, reduction, real_grad, fake_grad, fold_mean, grad_scale, scale)
    outputs: Outputs = outputs_of("realness_g_loss_value_and_grad")(*tensors, *settings)
    loss, *gradients = outputs
    call = Call(dim % fake_logits.ndim, reduction, fold_mean, grad_scale, scale)
    if objective == 2:
        assert real_logits is not None
        logits = [real_logits.detach(), fake_logits.detach()]
        targets = _targets(fake_logits, call.dim, fake_anchor)
        softmax_pair(call, loss, Batch(call.dim, logits, targets, gradients))
        return outputs
    positive = real_anchor if objective == 3 else None
    targets = _targets(fake_logits, call.dim, positive, fake_anchor)
    batch = Batch(call.dim, [fake_logits.detach()], targets, gradients[1:])
    divergence(call, loss, positive is not None, True, batch)
    return outputs


# --- scalar losses -------------------------------------------------------------------------------


@on_device_of(0)
@replayed(_checked("relativistic_loss_value_and_grad"))
def relativistic_loss(
    real_logits: Tensor,
    fake_logits: Tensor,
    real_term: Sequence[float],
    fake_term: Sequence[float],
    reduction: int,
    real_grad: bool,
    fake_grad: bool,
    fold_mean: bool,
    grad_scale: float,
) -> Outputs:
    loss = (real_logits, fake_logits, real_term, fake_term)
    settings = (reduction, real_grad, fake_grad, fold_mean, grad_scale)
    outputs: Outputs = outputs_of("relativistic_loss_value_and_grad")(*loss, *settings)
    value, to_real, to_fake = outputs
    terms = relativistic.terms_of(real_term, fake_term)
    real = relativistic.Batch(real_logits.detach(), to_real, value, reduction)
    fake = relativistic.Batch(fake_logits.detach(), to_fake, value, reduction)
    relativistic.relativistic(terms, reduction, fold_mean, grad_scale, value, real, fake)
    return outputs


@on_device_of(0)
@replayed(_checked("scalar_loss_value_and_grad"), scale=4, grad_scale=8)
def scalar_loss(
    tensors: Sequence[Tensor],
    names: str,
    places: Sequence[int],
    numbers: Sequence[float],
    scale: float,
    reduction: int,
    wanted: Sequence[int],
    fold_mean: bool,
    grad_scale: float,
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    losses, gradients = outputs_of("scalar_loss_value_and_grad")(
        tensors, names, places, numbers, scale, reduction, wanted, fold_mean, grad_scale
    )
    request = scalar.Request(scale, reduction, fold_mean, grad_scale)
    asked = dict(zip(wanted, gradients, strict=True))
    scalar.terms([x.detach() for x in tensors], places, numbers, asked, losses, request)
    return list(losses), list(gradients)


@on_device_of(0)
@replayed(lambda gradients, *_: [torch.empty_like(g) for g in gradients])
def scale_terms(
    gradients: Sequence[Tensor], grad_outputs: Sequence[Tensor], rows: Sequence[int]
) -> list[Tensor]:
    return scalar.scale(gradients, grad_outputs, rows)


@on_device_of(0)
@replayed(lambda *_: None)
def scale_terms_(
    gradients: Sequence[Tensor], grad_outputs: Sequence[Tensor], rows: Sequence[int]
) -> None:
    outputs_of("scale_terms_")(gradients, grad_outputs, rows)
    scalar.scale_in_place(gradients, grad_outputs, rows)


# --- layers --------------------------------------------------------------------------------------


@on_device_of(0)
@replayed(_like_gradient)
def scale_gradient(gradient: Tensor, grad_output: Tensor, dim: int, rows: int) -> Tensor:
    return layers.scale([gradient], grad_output, dim, [rows])[0]


@on_device_of(0)
@replayed(_like_gradients)
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
@replayed(_checked("resample_forward"))
def resample_forward(mu_logvar: Tensor, noise: Tensor, dim: int) -> Tensor:
    statistics = mu_logvar.detach()
    z: Tensor = outputs_of("resample_forward")(mu_logvar, noise, dim)
    layers.resample(statistics, noise.detach(), z, dim % statistics.ndim)
    return z


@on_device_of(1)
@replayed(_checked("resample_backward"))
def resample_backward(grad: Tensor, mu_logvar: Tensor, saved: Tensor, dim: int) -> Tensor:
    statistics = mu_logvar.detach()
    out: Tensor = outputs_of("resample_backward")(grad, mu_logvar, saved, dim)
    layers.resample_backward(grad, statistics, saved, out, dim % statistics.ndim)
    return out
