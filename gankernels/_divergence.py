"""The losses over distributions in plain PyTorch, by their formulas."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gankernels import _checks as check
from gankernels._rows import RowWeights, alike, upcast


def softmax_kl(
    logits: Tensor,
    target: Tensor,
    dim: int = 1,
    reduction: str = "mean",
    *,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    scale: float = 1.0,
) -> Tensor:
    """KL(A || softmax(z / T)) = sum A (log A - log softmax(z / T)), per row."""
    check.check_divergence_reduction(reduction)
    index = check.check_logits("logits", logits, dim)
    check.check_target("target", target, "logits", logits, index)
    each = RowWeights(logits, index, weight, mask)
    z = each.kept(_tempered(logits, check.check_positive_number("temperature", temperature)))
    return each.reduce(_kl_rows(z, each.kept(target), index), reduction, scale)


def softmax_kl_logits(
    p_logits: Tensor,
    q_logits: Tensor,
    dim: int = 1,
    reduction: str = "mean",
    *,
    temperature: float = 1.0,
    p_temperature: float | None = None,
    q_temperature: float | None = None,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    scale: float = 1.0,
) -> Tensor:
    """KL(p || q) = sum p (log p - log q) with p = softmax(p_logits / T), q = softmax(q_logits / T)."""
    index = _check_pair("p_logits", p_logits, "q_logits", q_logits, dim, reduction)
    of_p, of_q = check.check_temperatures(temperature, p_temperature, q_temperature)
    each = RowWeights(p_logits, index, weight, mask)
    p, q = each.kept(_tempered(p_logits, of_p)), each.kept(_tempered(q_logits, of_q))
    return each.reduce(_kl_logits_rows(*alike(p, q), index), reduction, scale)


def js_divergence(
    p_logits: Tensor,
    q_logits: Tensor,
    beta: float = 0.5,
    dim: int = 1,
    reduction: str = "mean",
    *,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    scale: float = 1.0,
) -> Tensor:
    """b KL(p || m) + (1 - b) KL(q || m) with m = b p + (1 - b) q: Agarwal et al. 2024, JSD(b)."""
    index = _check_pair("p_logits", p_logits, "q_logits", q_logits, dim, reduction)
    share = check.check_beta(beta)
    each = RowWeights(p_logits, index, weight, mask)
    temperature = check.check_positive_number("temperature", temperature)
    p, q = (each.kept(_tempered(z, temperature)) for z in (p_logits, q_logits))
    return each.reduce(_js_rows(*alike(p, q), share, index), reduction, scale)


def realness_d_loss(
    real_logits: Tensor,
    fake_logits: Tensor,
    real_anchor: Tensor,
    fake_anchor: Tensor,
    dim: int = 1,
    reduction: str = "mean",
    *,
    real_weight: Tensor | None = None,
    fake_weight: Tensor | None = None,
    real_mask: Tensor | None = None,
    fake_mask: Tensor | None = None,
    scale: float = 1.0,
) -> Tensor:
    """KL(A1 || softmax(real)) + KL(A0 || softmax(fake)): Xiangli et al. 2020, equation 3."""
    index = check_realness_d(real_logits, fake_logits, real_anchor, fake_anchor, dim, reduction)
    real_rows = RowWeights(real_logits, index, real_weight, real_mask, "real_")
    fake_rows = RowWeights(fake_logits, index, fake_weight, fake_mask, "fake_")
    # Once for both: a loss of float16 and float64 logits is float64.
    real, fake = alike(real_rows.kept(upcast(real_logits)), fake_rows.kept(upcast(fake_logits)))
    of_real = _kl_rows(real, real_rows.kept(real_anchor), index)
    of_fake = _kl_rows(fake, fake_rows.kept(fake_anchor), index)
    return real_rows.reduce(of_real, reduction, scale) + fake_rows.reduce(of_fake, reduction, scale)


def check_realness_d(
    real_logits: Tensor,
    fake_logits: Tensor,
    real_anchor: Tensor,
    fake_anchor: Tensor,
    dim: int,
    reduction: str,
) -> int:
    """Returns the non-negative ``dim``."""
    check.check_divergence_reduction(reduction)
    index = check.check_logits("real_logits", real_logits, dim)
    check.check_logits("fake_logits", fake_logits, dim)
    check.check_same_ndim("real_logits", real_logits, "fake_logits", fake_logits)
    check.check_same_classes("real_logits", real_logits, "fake_logits", fake_logits, dim)
    check.check_same_device("real_logits", real_logits, "fake_logits", fake_logits)
    if reduction == "none":
        check.check_same_shape("real_logits", real_logits, "fake_logits", fake_logits)
    check.check_target("real_anchor", real_anchor, "real_logits", real_logits, index)
    check.check_target("fake_anchor", fake_anchor, "fake_logits", fake_logits, index)
    return index


def realness_g_loss(
    real_logits: Tensor | None,
    fake_logits: Tensor,
    real_anchor: Tensor | None,
    fake_anchor: Tensor,
    objective: int = 2,
    dim: int = 1,
    reduction: str = "mean",
    *,
    scale: float = 1.0,
) -> Tensor:
    """Xiangli et al. 2020, equations 18, 19 and 20, with p = softmax(real), q = softmax(fake):

    1: -KL(A0 || q)      2: KL(p || q) - KL(A0 || q)      3: KL(A1 || q) - KL(A0 || q)
    """
    check.check_divergence_reduction(reduction)
    check.check_objective(objective)
    index = check.check_logits("fake_logits", fake_logits, dim)
    check.check_target("fake_anchor", fake_anchor, "fake_logits", fake_logits, index)
    real, fake = None, upcast(fake_logits)
    if objective == 2:
        check.check_required("real_logits", real_logits, objective)
        assert real_logits is not None
        check.check_floating("real_logits", real_logits)
        check.check_same_device("real_logits", real_logits, "fake_logits", fake_logits)
        check.check_same_shape("real_logits", real_logits, "fake_logits", fake_logits)
        real, fake = alike(upcast(real_logits), fake)
    rows = -_kl_rows(fake, fake_anchor, index)
    if real is not None:
        rows = rows + _kl_logits_rows(real, fake, index)
    if objective == 3:
        check.check_required("real_anchor", real_anchor, objective)
        assert real_anchor is not None
        check.check_target("real_anchor", real_anchor, "fake_logits", fake_logits, index)
        rows = rows + _kl_rows(fake, real_anchor, index)
    return RowWeights(fake_logits, index).reduce(rows, reduction, scale)


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    """Logits as the softmax takes them, in the accumulation dtype."""
    return upcast(logits) if temperature == 1 else upcast(logits) / temperature


def _check_pair(a_name: str, a: Tensor, b_name: str, b: Tensor, dim: int, reduction: str) -> int:
    """Returns the non-negative ``dim``."""
    check.check_divergence_reduction(reduction)
    index = check.check_logits(a_name, a, dim)
    check.check_floating(b_name, b)
    check.check_same_device(a_name, a, b_name, b)
    check.check_same_shape(a_name, a, b_name, b)
    return index


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


def _js_rows(p_logits: Tensor, q_logits: Tensor, beta: float, dim: int) -> Tensor:
    log_p, log_q = F.log_softmax(p_logits, dim), F.log_softmax(q_logits, dim)
    # Where neither has mass, log m has no derivative.
    neither = (log_p == -math.inf) & (log_q == -math.inf)
    log_p, log_q = log_p.masked_fill(neither, 0), log_q.masked_fill(neither, 0)
    # Not logaddexp, whose second derivative overflows where the two are far apart.
    log_m = torch.stack((log_p + math.log(beta), log_q + math.log1p(-beta))).logsumexp(0)

    rows = []
    for log_x in (log_p, log_q):
        x = log_x.exp().masked_fill(neither, 0)
        rows.append((x * (log_x - log_m).masked_fill(x == 0, 0)).sum(dim))  # 0 log 0 = 0
    return beta * rows[0] + (1 - beta) * rows[1]
