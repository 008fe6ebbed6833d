"""The operators as users write them in plain PyTorch, in the dtype of their inputs: the yardstick."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gankernels._scalar import ScalarLoss


def _align(target: Tensor, logits: Tensor, dim: int) -> Tensor:
    if target.ndim == logits.ndim:
        return target
    return target.reshape([-1 if d == dim % logits.ndim else 1 for d in range(logits.ndim)])


def _reduce(rows: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return rows
    return rows.mean() if reduction == "mean" else rows.sum()


def _kl_rows(logits: Tensor, target: Tensor, dim: int) -> Tensor:
    target = _align(target, logits, dim)
    return (torch.xlogy(target, target) - target * F.log_softmax(logits, dim)).sum(dim)


def _kl_logits_rows(p_logits: Tensor, q_logits: Tensor, dim: int) -> Tensor:
    log_p, log_q = F.log_softmax(p_logits, dim), F.log_softmax(q_logits, dim)
    return (log_p.exp() * (log_p - log_q)).sum(dim)


def softmax_kl(
    logits: Tensor,
    target: Tensor,
    dim: int = 1,
    reduction: str = "mean",
    temperature: float = 1.0,
    scale: float = 1.0,
) -> Tensor:
    return scale * _reduce(_kl_rows(logits / temperature, target, dim), reduction)


def softmax_kl_logits(
    p_logits: Tensor,
    q_logits: Tensor,
    dim: int = 1,
    reduction: str = "mean",
    p_temperature: float = 1.0,
    q_temperature: float = 1.0,
    scale: float = 1.0,
) -> Tensor:
    rows = _kl_logits_rows(p_logits / p_temperature, q_logits / q_temperature, dim)
    return scale * _reduce(rows, reduction)


def js_divergence(
    p_logits: Tensor,
    q_logits: Tensor,
    beta: float = 0.5,
    dim: int = 1,
    reduction: str = "mean",
    temperature: float = 1.0,
    scale: float = 1.0,
) -> Tensor:
    log_p, log_q = (F.log_softmax(z / temperature, dim) for z in (p_logits, q_logits))
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    of_p, of_q = ((x.exp() * (x - log_m)).sum(dim) for x in (log_p, log_q))
    return scale * _reduce(beta * of_p + (1 - beta) * of_q, reduction)


def realness_d_loss(
    real_logits: Tensor,
    fake_logits: Tensor,
    real_anchor: Tensor,
    fake_anchor: Tensor,
    dim: int = 1,
    reduction: str = "mean",
    scale: float = 1.0,
) -> Tensor:
    real = _kl_rows(real_logits, real_anchor, dim)
    fake = _kl_rows(fake_logits, fake_anchor, dim)
    return scale * (_reduce(real, reduction) + _reduce(fake, reduction))


def realness_g_loss(
    real_logits: Tensor | None,
    fake_logits: Tensor,
    real_anchor: Tensor | None,
    fake_anchor: Tensor,
    objective: int = 2,
    dim: int = 1,
    reduction: str = "mean",
    scale: float = 1.0,
) -> Tensor:
    rows = -_kl_rows(fake_logits, fake_anchor, dim)
    if objective == 2:
        assert real_logits is not None
        rows = _kl_logits_rows(real_logits, fake_logits, dim) + rows
    if objective == 3:
        assert real_anchor is not None
        rows = _kl_rows(fake_logits, real_anchor, dim) + rows
    return scale * _reduce(rows, reduction)


def scalar_loss(loss: ScalarLoss) -> Callable[..., Tensor]:
    """A row's formulas, in the dtype of the logits."""

    def eager(
        real_logits: Tensor | None = None,
        fake_logits: Tensor | None = None,
        reduction: str = "mean",
        *,
        label_smoothing: float = 0.0,
        real_label: float | None = None,
        fake_label: float | None = None,
        label: float | None = None,
        scale: float = 1.0,
    ) -> Tensor:
        real, fake = real_logits, fake_logits
        if loss.pair is not None:
            assert real is not None
            assert fake is not None
            return scale * _reduce(loss.pair.formula(real - fake, 0.0), reduction)
        if label_smoothing:
            real_label = 1 - label_smoothing
        total = None
        for side, x, other, target in (
            (loss.real, real, fake, real_label),
            (loss.fake, fake, real, fake_label if label is None else label),
        ):
            if side is None or x is None:
                continue
            less = x - other.mean() if loss.relativistic and other is not None else x
            target = side.label if target is None else target
            rows = _reduce(side.formula(less, target or 0.0), reduction)
            total = rows if total is None else total + rows
        assert total is not None
        return scale * total

    return eager


class Scaled(torch.autograd.Function):
    """The layer as the field writes it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float | Tensor) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0] * ctx.scale, None


def gradient_scale(x: Tensor, scale: Tensor) -> Tensor:
    return Scaled.apply(x, scale.reshape([-1] + [1] * (x.ndim - 1)))  # type: ignore[no-any-return, no-untyped-call]


def resample_logits(mu_logvar: Tensor, noise: Tensor, dim: int = 1) -> Tensor:
    mean, log_variance = mu_logvar.chunk(2, dim)
    return mean + noise * (log_variance / 2).exp()


def resampled(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The loss of logits drawn first."""

    def eager(
        real_statistics: Tensor | None,
        fake_statistics: Tensor,
        real_noise: Tensor | None,
        fake_noise: Tensor,
        dim: int = 1,
        **options: Any,
    ) -> Tensor:
        logits: list[Tensor | None] = [None, resample_logits(fake_statistics, fake_noise, dim)]
        if real_statistics is not None and real_noise is not None:
            logits[0] = resample_logits(real_statistics, real_noise, dim)
        return loss(*logits, dim=dim, **options)

    return eager
