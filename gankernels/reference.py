"""The operators in plain PyTorch: the specification, the fallback, and the oracle of the tests.

Any device, any order of derivative, ``torch.func`` and ``torch.compile(fullgraph=True)``. Every
function computes in float32 (float64 for float64 inputs) and gives a loss in that dtype. Notation:
logits ``z``, ``lse`` = log-sum-exp over the classes, ``softplus(x) = log(1 + exp(x))``, and
``0 log 0 = 0``. The full documentation of each name is at ``gankernels.functional``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gankernels import _checks as check
from gankernels._checks import accumulation_dtype as accumulation_dtype
from gankernels._scalar import SCALAR_LOSSES, ScalarLoss
from gankernels._scalar_call import Call, Part, arranged, bound, parts_of, prepared, scale_of

__all__ = [
    "feature_matching_loss",
    "gradient_reversal",
    "gradient_scale",
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


def _upcast(x: Tensor) -> Tensor:
    # Once per input: the gradients of several uses must add up before they are rounded.
    return x.to(accumulation_dtype(x.dtype))


def _reduce(rows: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return rows.mean()
    return rows.sum() if reduction == "sum" else rows


def _check_two_batches(real: Tensor, fake: Tensor, reduction: str) -> None:
    """Batches may differ in shape unless the per-row losses are to be added."""
    check.check_reduction(reduction)
    check.check_floating("real_logits", real)
    check.check_floating("fake_logits", fake)
    check.check_same_dtype("real_logits", real, "fake_logits", fake)
    check.check_same_device("real_logits", real, "fake_logits", fake)
    if reduction == "none":
        check.check_same_shape("real_logits", real, "fake_logits", fake)


# --- losses over distributions -------------------------------------------------------------------


def softmax_kl(logits: Tensor, target: Tensor, dim: int = 1, reduction: str = "mean") -> Tensor:
    """KL(A || softmax(z)) = sum A (log A - log softmax(z)), per row."""
    check.check_reduction(reduction)
    index = check.check_logits("logits", logits, dim)
    check.check_target("target", target, "logits", logits, index)
    return _reduce(_kl_rows(_upcast(logits), target, index), reduction)


def softmax_kl_logits(
    p_logits: Tensor, q_logits: Tensor, dim: int = 1, reduction: str = "mean"
) -> Tensor:
    """KL(p || q) = sum p (log p - log q) with p = softmax(p_logits), q = softmax(q_logits)."""
    check.check_reduction(reduction)
    index = check.check_logits("p_logits", p_logits, dim)
    check.check_floating("q_logits", q_logits)
    check.check_same_dtype("p_logits", p_logits, "q_logits", q_logits)
    check.check_same_device("p_logits", p_logits, "q_logits", q_logits)
    check.check_same_shape("p_logits", p_logits, "q_logits", q_logits)
    rows = _kl_logits_rows(_upcast(p_logits), _upcast(q_logits), index)
    return _reduce(rows, reduction)


def realness_d_loss(
    real_logits: Tensor,
    fake_logits: Tensor,
    real_anchor: Tensor,
    fake_anchor: Tensor,
    dim: int = 1,
    reduction: str = "mean",
) -> Tensor:
    """KL(A1 || softmax(real)) + KL(A0 || softmax(fake)): Xiangli et al. 2020, equation 3."""
    check.check_reduction(reduction)
    index = check.check_logits("real_logits", real_logits, dim)
    check.check_logits("fake_logits", fake_logits, dim)
    check.check_same_ndim("real_logits", real_logits, "fake_logits", fake_logits)
    check.check_same_classes("real_logits", real_logits, "fake_logits", fake_logits, dim)
    _check_two_batches(real_logits, fake_logits, reduction)
    check.check_target("real_anchor", real_anchor, "real_logits", real_logits, index)
    check.check_target("fake_anchor", fake_anchor, "fake_logits", fake_logits, index)
    real = _kl_rows(_upcast(real_logits), real_anchor, index)
    fake = _kl_rows(_upcast(fake_logits), fake_anchor, index)
    return _reduce(real, reduction) + _reduce(fake, reduction)


def realness_g_loss(
    real_logits: Tensor | None,
    fake_logits: Tensor,
    real_anchor: Tensor | None,
    fake_anchor: Tensor,
    objective: int = 2,
    dim: int = 1,
    reduction: str = "mean",
) -> Tensor:
    """Xiangli et al. 2020, equations 18, 19 and 20, with p = softmax(real), q = softmax(fake):

    1: -KL(A0 || q)      2: KL(p || q) - KL(A0 || q)      3: KL(A1 || q) - KL(A0 || q)
    """
    check.check_reduction(reduction)
    check.check_objective(objective)
    index = check.check_logits("fake_logits", fake_logits, dim)
    check.check_target("fake_anchor", fake_anchor, "fake_logits", fake_logits, index)
    fake = _upcast(fake_logits)
    rows = -_kl_rows(fake, fake_anchor, index)
    if objective == 2:
        check.check_required("real_logits", real_logits, objective)
        assert real_logits is not None
        check.check_floating("real_logits", real_logits)
        check.check_same_dtype("real_logits", real_logits, "fake_logits", fake_logits)
        check.check_same_device("real_logits", real_logits, "fake_logits", fake_logits)
        check.check_same_shape("real_logits", real_logits, "fake_logits", fake_logits)
        rows = rows + _kl_logits_rows(_upcast(real_logits), fake, index)
    elif objective == 3:
        check.check_required("real_anchor", real_anchor, objective)
        assert real_anchor is not None
        check.check_target("real_anchor", real_anchor, "fake_logits", fake_logits, index)
        rows = rows + _kl_rows(fake, real_anchor, index)
    return _reduce(rows, reduction)


def _kl_rows(logits: Tensor, target: Tensor, dim: int) -> Tensor:
    log_q = F.log_softmax(logits, dim)
    target = target.to(log_q.dtype)
    if target.ndim != logits.ndim:
        target = target.reshape([-1 if d == dim else 1 for d in range(logits.ndim)])
    # A zero bin counts 0 whatever its logit, except in a row that log_softmax makes NaN.
    no_mass = (target == 0) & ~log_q.isnan()
    log_ratio = target.masked_fill(no_mass, 1).log() - log_q.masked_fill(no_mass, 0)
    return (target * log_ratio).sum(dim)


def _kl_logits_rows(p_logits: Tensor, q_logits: Tensor, dim: int) -> Tensor:
    log_p, log_q = F.log_softmax(p_logits, dim), F.log_softmax(q_logits, dim)
    p = log_p.exp()
    return (p * (log_p - log_q).masked_fill(p == 0, 0)).sum(dim)  # 0 log 0 = 0


# --- scalar losses: every element is a row -------------------------------------------------------


def scalar_terms(parts: Sequence[Part], reduction: str, scale: float = 1.0) -> list[Tensor]:
    """The outputs of the parts of a scalar loss, by the formulas of its row."""
    outputs: dict[int, Tensor] = {}
    for part in parts:
        reduced = scale * _reduce(_rows_of_part(part), reduction)
        before = outputs.get(part.output)
        outputs[part.output] = reduced if before is None else before + reduced
    return [outputs[i] for i in range(len(outputs))]


def _rows_of_part(part: Part) -> Tensor:
    """The losses of a part's elements; one of weight 0 is 0 whatever the logit."""
    x, label = _upcast(part.logits), part.side.label if part.label is None else part.label
    if part.other is not None:
        x = x - _upcast(part.other)
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
        return scalar_loss(loss, bound(name, loss, args, kwargs))

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
    maps = list(_maps(real_features, fake_features))
    distances = []
    for a, b in maps:
        difference = _upcast(b) - _upcast(a).detach()
        distances.append((difference.abs() if norm == "l1" else difference.square()).mean())
    total = torch.stack(distances).sum()
    return scale * (total / len(maps) if average else total)


def _maps(real: Any, fake: Any) -> Iterator[tuple[Tensor, Tensor]]:
    if isinstance(real, Tensor):
        yield real, fake
        return
    for a, b in zip(real, fake, strict=True):
        yield from _maps(a, b)


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
    mean, log_variance = _upcast(statistics).chunk(2, index)
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
) -> Tensor:
    """realness_d_loss of logits drawn from statistics, without rounding the logits."""
    real = _drawn("real_statistics", real_statistics, dim, "real_noise", real_noise)
    fake = _drawn("fake_statistics", fake_statistics, dim, "fake_noise", fake_noise)
    named = "real_statistics", real_statistics, "fake_statistics", fake_statistics
    check.check_same_device(*named)
    check.check_same_dtype(*named)
    if reduction == "none":
        check.check_same_shape(*named)
    return realness_d_loss(real, fake, real_anchor, fake_anchor, dim, reduction)


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
        check.check_same_dtype(*named)
        check.check_same_shape(*named)
    return realness_g_loss(real, fake, real_anchor, fake_anchor, objective, dim, reduction)


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
