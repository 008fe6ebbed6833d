"""The operators in plain PyTorch: the specification, the fallback, and the oracle of the tests.

Any device, any order of derivative, ``torch.func`` and ``torch.compile(fullgraph=True)``. Every
function computes in float32 (float64 for float64 inputs) and gives a loss in that dtype. Notation:
logits ``z``, ``lse`` = log-sum-exp over the classes, ``softplus(x) = log(1 + exp(x))``, and
``0 log 0 = 0``. The full documentation of each name is at ``gankernels.functional``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gankernels import _checks as check
from gankernels._divergence import (
    js_divergence,
    realness_d_loss,
    realness_g_loss,
    softmax_kl,
    softmax_kl_logits,
)
from gankernels._rows import accumulation_dtype as accumulation_dtype
from gankernels._rows import reduce, upcast
from gankernels._scalar import SCALAR_LOSSES, ScalarLoss

__all__ = [
    "gradient_reversal",
    "gradient_scale",
    "js_divergence",
    "negate_",
    "realness_d_loss",
    "realness_g_loss",
    "resample_logits",
    "resampled_realness_d_loss",
    "resampled_realness_g_loss",
    "softmax_kl",
    "softmax_kl_logits",
    *SCALAR_LOSSES,
]


# --- shared pieces -------------------------------------------------------------------------------


def _check_two_batches(real: Tensor, fake: Tensor, reduction: str) -> None:
    """Batches may differ in shape unless the per-row losses are to be added."""
    check.check_reduction(reduction)
    check.check_floating("real_logits", real)
    check.check_floating("fake_logits", fake)
    check.check_same_dtype("real_logits", real, "fake_logits", fake)
    check.check_same_device("real_logits", real, "fake_logits", fake)
    if reduction == "none":
        check.check_same_shape("real_logits", real, "fake_logits", fake)


def _check_one_batch(fake: Tensor, reduction: str) -> None:
    check.check_reduction(reduction)
    check.check_floating("fake_logits", fake)


# --- scalar losses: every element is a row -------------------------------------------------------


def scalar_loss(
    loss: ScalarLoss,
    real_logits: Tensor | None,
    fake_logits: Tensor,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """A row of the scalar losses by its formulas; ``label_smoothing`` s adds s r to the real terms."""
    if not loss.real:
        _check_one_batch(fake_logits, reduction)
        rows = loss.rows(None, upcast(fake_logits))
    else:
        check.check_tensor("real_logits", real_logits)
        assert real_logits is not None
        _check_two_batches(real_logits, fake_logits, reduction)
        rows = loss.rows(upcast(real_logits), upcast(fake_logits), label_smoothing)
    return add_up(rows, reduction)


def add_up(rows: tuple[Tensor, ...], reduction: str) -> Tensor:
    """One batch's losses reduced, or the sum of two."""
    reduced = [reduce(batch, reduction) for batch in rows]
    return reduced[0] if len(reduced) == 1 else reduced[0] + reduced[1]


def _of_two_batches(loss: ScalarLoss) -> Callable[..., Tensor]:
    def compute(real_logits: Tensor, fake_logits: Tensor, reduction: str = "mean") -> Tensor:
        return scalar_loss(loss, real_logits, fake_logits, reduction)

    return compute


def _of_fake_batch(loss: ScalarLoss) -> Callable[..., Tensor]:
    def compute(fake_logits: Tensor, reduction: str = "mean") -> Tensor:
        return scalar_loss(loss, None, fake_logits, reduction)

    return compute


def _define(name: str, loss: ScalarLoss) -> None:
    function = (_of_two_batches if loss.real else _of_fake_batch)(loss)
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The formulas of ``{name}`` in ``gankernels._scalar``."
    globals()[name] = function


for _name, _loss in SCALAR_LOSSES.items():
    _define(_name, _loss)

_LOGISTIC = SCALAR_LOSSES["logistic_d_loss"]


def logistic_d_loss(
    real_logits: Tensor,
    fake_logits: Tensor,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """softplus(-r) + s r  +  softplus(f): the BCE of targets 1 - s (real) and 0 (fake)."""
    check.check_label_smoothing(label_smoothing)
    return scalar_loss(_LOGISTIC, real_logits, fake_logits, reduction, label_smoothing)


# --- layers --------------------------------------------------------------------------------------


def gradient_reversal(x: Tensor, alpha: float | Tensor = 1.0) -> Tensor:
    """Forward x, backward -alpha g. Not the derivative of its forward: twice gives alpha^2."""
    check.check_floating("x", x)
    return _scale_gradient(x, -check.check_alpha(alpha))


def gradient_scale(x: Tensor, scale: float | Tensor) -> Tensor:
    """Forward x, backward scale g, with one factor for all or one per sample (dim 0)."""
    check.check_floating("x", x)
    check.check_scale(scale, x)
    if isinstance(scale, Tensor) and scale.ndim == 1:
        scale = scale.reshape([-1] + [1] * (x.ndim - 1))
    return _scale_gradient(x, scale)


def negate_(t: Tensor) -> Tensor:
    """t <- -t in place; returns t."""
    check.check_floating("t", t)
    check.check_writable("t", t)
    return t.neg_()


def resample_logits(
    mu_logvar: Tensor,
    dim: int = 1,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """mu + e exp(logvar / 2), e ~ N(0, 1), from 2K channels: K means, then K log-variances."""
    return _drawn("mu_logvar", mu_logvar, dim, "noise", noise, generator).to(mu_logvar.dtype)


def _drawn(
    name: str,
    statistics: Tensor,
    dim: int,
    noise_name: str,
    noise: Tensor | None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Logits drawn from statistics, in the accumulation dtype."""
    index = check.check_statistics(name, statistics, dim)
    mean, log_variance = upcast(statistics).chunk(2, index)
    if noise is None:
        noise = standard_normal(list(mean.shape), mean, generator)
    check.check_noise(noise_name, noise, list(mean.shape), name, statistics)
    return mean + noise.detach().to(mean.dtype) * (0.5 * log_variance).exp()


def resampled_realness_d_loss(
    real_statistics: Tensor,
    fake_statistics: Tensor,
    real_anchor: Tensor,
    fake_anchor: Tensor,
    dim: int = 1,
    reduction: str = "mean",
    real_noise: Tensor | None = None,
    fake_noise: Tensor | None = None,
    *,
    scale: float = 1.0,
) -> Tensor:
    """realness_d_loss of logits drawn from statistics, without rounding the logits."""
    real = _drawn("real_statistics", real_statistics, dim, "real_noise", real_noise)
    fake = _drawn("fake_statistics", fake_statistics, dim, "fake_noise", fake_noise)
    named = "real_statistics", real_statistics, "fake_statistics", fake_statistics
    check.check_same_device(*named)
    if reduction == "none":
        check.check_same_shape(*named)
    return realness_d_loss(real, fake, real_anchor, fake_anchor, dim, reduction, scale=scale)


def resampled_realness_g_loss(
    real_statistics: Tensor | None,
    fake_statistics: Tensor,
    real_anchor: Tensor | None,
    fake_anchor: Tensor,
    objective: int = 2,
    dim: int = 1,
    reduction: str = "mean",
    real_noise: Tensor | None = None,
    fake_noise: Tensor | None = None,
    *,
    scale: float = 1.0,
) -> Tensor:
    """realness_g_loss of logits drawn from statistics, without rounding the logits."""
    real = None
    fake = _drawn("fake_statistics", fake_statistics, dim, "fake_noise", fake_noise)
    if objective == 2:
        check.check_required("real_statistics", real_statistics, objective)
        assert real_statistics is not None
        real = _drawn("real_statistics", real_statistics, dim, "real_noise", real_noise)
        named = "real_statistics", real_statistics, "fake_statistics", fake_statistics
        check.check_same_device(*named)
        check.check_same_shape(*named)
    anchors = (real_anchor, fake_anchor)
    return realness_g_loss(real, fake, *anchors, objective, dim, reduction, scale=scale)


def standard_normal(shape: list[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """N(0, 1) noise in the accumulation dtype of ``like``, on its device."""
    options: dict[str, Any] = {
        "dtype": accumulation_dtype(like.dtype),
        "device": like.device,
    }
    if generator is None:  # torch.compile takes no generator argument, not even None
        return torch.randn(shape, **options)
    return torch.randn(shape, generator=generator, **options)


def _scale_gradient(x: Tensor, scale: float | Tensor) -> Tensor:
    # torch.compile takes no autograd.Function with a jvp, and needs none.
    function = _ScaleGradient if torch.compiler.is_compiling() else _ScaleGradientJvp
    return function.apply(x, scale)  # type: ignore[no-any-return, no-untyped-call]


class _ScaleGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: float | Tensor) -> Tensor:
        return x.clone()  # not a view: an in-place op may follow

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float | Tensor], output: Tensor) -> None:
        scale = inputs[1]
        ctx.scale = None if isinstance(scale, Tensor) else scale
        if isinstance(scale, Tensor):
            ctx.save_for_backward(scale)
            ctx.save_for_forward(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _scaled(ctx, grads[0]), None


class _ScaleGradientJvp(_ScaleGradient):
    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        # Forward mode follows backward, so that both modes agree.
        return _scaled(ctx, tangents[0])


def _scaled(ctx: Any, gradient: Tensor) -> Tensor:
    scale: float | Tensor = ctx.saved_tensors[0] if ctx.scale is None else ctx.scale
    return (gradient * scale).to(gradient.dtype)
