"""The operators in plain PyTorch: the specification, the fallback, and the oracle of the tests.

Any device, any order of derivative, ``torch.func`` and ``torch.compile(fullgraph=True)``. Every
function computes in float32 (float64 for float64 inputs) and gives a loss in that dtype. Notation:
logits ``z``, ``lse`` = log-sum-exp over the classes, ``softplus(x) = log(1 + exp(x))``, and
``0 log 0 = 0``. The full documentation of each name is at ``gankernels.functional``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gankernels import _checks as check
from gankernels._checks import accumulation_dtype as accumulation_dtype
from gankernels._divergence import (
    js_divergence,
    realness_d_loss,
    realness_g_loss,
    softmax_kl,
    softmax_kl_logits,
)
from gankernels._rows import reduce, upcast
from gankernels._scalar import SCALAR_LOSSES, ScalarLoss
from gankernels._scalar_call import (
    Call,
    Part,
    arranged,
    bound,
    by_name,
    parts_of,
    parts_of_maps,
    scale_of,
)
from gankernels._scalar_prepared import prepared

__all__ = [
    "feature_matching_loss",
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


# --- scalar losses: every element is a row -------------------------------------------------------


def scalar_terms(parts: Sequence[Part], reduction: str, scale: float = 1.0) -> list[Tensor]:
    """The outputs of the parts of a scalar loss, by the formulas of its row."""
    outputs: dict[int, Tensor] = {}
    for part in parts:
        reduced = scale * reduce(_rows_of_part(part), reduction)
        before = outputs.get(part.output)
        outputs[part.output] = reduced if before is None else before + reduced
    return [outputs[i] for i in range(len(outputs))]


def _rows_of_part(part: Part) -> Tensor:
    """The losses of a part's elements; one of weight 0 is 0 whatever the logit."""
    x, label = upcast(part.logits), part.side.label if part.label is None else part.label
    if part.other is not None:
        x = x - upcast(part.other)
    if part.weight is None:
        return part.side.formula(x, label or 0.0)
    counts = part.weight != 0
    rows = part.side.formula(torch.where(counts | x.isfinite(), x, 0.0), label or 0.0)
    return torch.where(counts | rows.isfinite(), rows, 0.0) * part.weight


def scalar_loss(loss: ScalarLoss, call: Call) -> Any:
    """A row of the scalar losses by its formulas."""
    parts = prepared(parts_of(loss, call), call.reduction)
    return arranged(scalar_terms(parts, call.reduction, scale_of(call)), call)


def _define(name: str, loss: ScalarLoss) -> None:
    """The function by this name: its arguments are those of ``gankernels.scalar_losses``."""

    def compute(*args: Any, **kwargs: Any) -> Any:
        return scalar_loss(loss, bound(name, loss, by_name(name, loss, args, kwargs)))

    compute.__name__ = compute.__qualname__ = name
    compute.__doc__ = f"The formulas of ``{name}`` in ``gankernels._scalar``."
    globals()[name] = compute


for _name, _loss in SCALAR_LOSSES.items():
    _define(_name, _loss)


def feature_matching_loss(
    real_features: Any,
    fake_features: Any,
    *,
    norm: str = "l1",
    average: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """The sum over all maps of mean |b - a|, or of mean (b - a)^2, real features a held constant."""
    scale = check.check_factor("scale", scale)
    parts = parts_of_maps(real_features, fake_features, norm)
    distances = []
    for part in parts:
        assert part.other is not None
        difference = upcast(part.logits) - upcast(part.other)
        distances.append((difference.abs() if norm == "l1" else difference.square()).mean())
    total = torch.stack(distances).sum()
    return scale * (total / len(parts) if average else total)


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
