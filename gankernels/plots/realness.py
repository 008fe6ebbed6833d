"""What a discriminator over realness is about, drawn: its anchors, what it says, how far its loss reaches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gankernels import _checks as check
from gankernels import functional
from gankernels.plots import canvas
from gankernels.plots.runs import read_metrics

__all__ = ["anchors", "gradients", "realness"]

Loss = Callable[[Tensor, Tensor], Tensor]

REAL, FAKE = "tab:blue", "tab:orange"


def anchors(
    source: str | Path | tuple[Tensor, Tensor] | torch.nn.Module,
    *,
    before: tuple[Tensor, Tensor] | None = None,
    low: float = -1.0,
    high: float = 1.0,
) -> Any:
    """Draw the two anchors, their means, and what they were before a skew.

    Args:
        source: ``(real_anchor, fake_anchor)``, each ``(K,)``; a :class:`gankernels.RealnessLoss`; or the folder
            of a run with the realness loss, whose last anchors are drawn.
        before: The anchors before :func:`gankernels.anchors.skewed`, as outlines behind.
        low: Realness of the first outcome.
        high: Realness of the last outcome.

    Returns:
        A ``matplotlib.figure.Figure``, unknown to pyplot: ``.savefig("anchors.png")`` writes it, and a notebook
        under ``%matplotlib inline`` shows it. The title has the Jensen-Shannon divergence of the two, which is at
        most log 2 = 0.693 nat, where they have no outcome in common.

    Raises:
        ImportError: matplotlib is missing; the message says what to type.
        TypeError, ValueError: An anchor is no float tensor, or is not ``(K,)`` as the other one is.
        FileNotFoundError, ValueError: See :func:`read_metrics`; also if the run has no anchors.

    Example:
        >>> import gankernels as gk
        >>> figure = anchors((gk.anchors.gaussian(20, 1, 1, -2, 2), gk.anchors.gaussian(20, -1, 1, -2, 2)))
        >>> figure.axes[0].get_title()
        'JS divergence 0.277 nat; means +0.38 and -0.38'
    """
    real, fake = _pair(_anchors_of(source))
    at = torch.linspace(low, high, len(real), dtype=torch.float64, device="cpu")
    figure = canvas.figure(7, 3.5)
    axis = figure.add_subplot()
    width = (high - low) / max(len(at) - 1, 1)
    for name, masses, colour in (("real", real, REAL), ("fake", fake, FAKE)):
        axis.bar(
            at.numpy(), masses.numpy(), width, alpha=0.45, color=colour, label=f"{name} anchor"
        )
        axis.axvline(float(masses @ at / masses.sum()), color=colour, linestyle=":")
    if before is not None:
        for name, masses, colour in zip(("real", "fake"), _pair(before), (REAL, FAKE), strict=True):
            axis.step(at, masses, where="mid", color=colour, linewidth=1, label=f"{name}, before")
    means = [float(a @ at / a.sum()) for a in (real, fake)]
    axis.set_title(
        f"JS divergence {_jensen_shannon(real, fake):.3f} nat; "
        f"means {means[0]:+.2f} and {means[1]:+.2f}"
    )
    axis.set(xlabel="realness of the outcome", ylabel="mass")
    canvas.legend(axis)
    return figure


def realness(source: str | Path | Sequence[Mapping[str, Any]] | tuple[Tensor, Tensor]) -> Any:
    """Draw the mean distributions that the discriminator gives to real and to fake samples.

    Of one moment as bars; of several as two maps, step by outcome, with the mean realness of both beside.

    Args:
        source: ``(real_logits, fake_logits)``, each ``(N, K)``, or ``(T, N, K)`` for T moments of a training;
            the folder of a run with the realness loss; or the records of such a run, as :func:`read_metrics`
            gives them. Realness runs from -1 (first outcome) to 1 (last).

    Returns:
        A ``matplotlib.figure.Figure``, as :func:`anchors` does.

    Raises:
        ImportError: matplotlib is missing; the message says what to type.
        TypeError, ValueError: Logits of another shape or dtype, or records without distributions.
        FileNotFoundError, ValueError: See :func:`read_metrics`.

    Example:
        >>> figure = realness((torch.zeros(8, 5), torch.randn(8, 5)))
        >>> [axis.get_title() for axis in figure.axes]
        ['D of 8 real and 8 fake samples']
    """
    if isinstance(source, tuple):
        return _of_logits(*source)
    records = read_metrics(source) if isinstance(source, str | Path) else source
    found = [r for r in records if "real_distribution" in r and "fake_distribution" in r]
    if not found:
        raise ValueError(
            "source must have real_distribution and fake_distribution, which runs with the realness loss "
            f"write wherever they sample, got {len(records)} records without"
        )
    steps = [int(r["step"]) for r in found]
    real, fake = (
        torch.tensor([r[f"{name}_distribution"] for r in found], dtype=torch.float64, device="cpu")
        for name in ("real", "fake")
    )
    return _maps(real, fake, steps, "step")


def gradients(
    losses: Mapping[str, Loss] | None = None,
    *,
    largest: float = 120.0,
    dtype: torch.dtype = torch.float32,
) -> Any:
    r"""Draw how large a loss's gradient still is where the logits are wrong by ever more.

    Two outcomes, all mass of the target on the first one, logits ``(-gap, 0)``: the exact gradient of
    :math:`\mathrm{KL}(A \| \mathrm{softmax}(z))` at the first logit has magnitude :math:`1 - 1 / (1 + e^{gap})`,
    which tends to 1. ``log(softmax(z) + 1e-16)`` has :math:`p / (p + 10^{-16})` times that, with
    :math:`p \approx e^{-gap}`: nothing is left beyond a gap of 37.

    Args:
        losses: By name, ``loss(logits, target)`` with logits ``(N, 2)`` and target ``(2,)``, giving one value per
            row, or their sum; None compares :func:`gankernels.softmax_kl` with the formula above.
        largest: The largest gap.
        dtype: Of the logits.

    Returns:
        A ``matplotlib.figure.Figure``, as :func:`anchors` does.

    Raises:
        ImportError: matplotlib is missing; the message says what to type.
        ValueError: ``largest`` is not positive.

    Example:
        >>> ours, clamped = gradients().axes[0].get_lines()
        >>> float(ours.get_ydata()[-1]), float(clamped.get_ydata()[-1])
        (1.0, 0.0)
    """
    if not largest > 0:
        raise ValueError(f"largest must be positive, got {largest!r}")
    gaps = torch.linspace(0, largest, 481, dtype=torch.float64, device="cpu")
    figure = canvas.figure(7, 3.5)
    axis = figure.add_subplot()
    for name, loss in (LOSSES if losses is None else losses).items():
        axis.plot(gaps.tolist(), _magnitudes(loss, gaps, dtype), label=name)
    axis.set(xlabel="logit gap", ylabel="|gradient| at the logit", ylim=(-0.05, 1.1))
    axis.grid(alpha=0.3)
    canvas.legend(axis)
    return figure


def _ours(logits: Tensor, target: Tensor) -> Tensor:
    return functional.softmax_kl(logits, target, reduction="none")


def _clamped(logits: Tensor, target: Tensor) -> Tensor:
    return -(target * (logits.softmax(1) + 1e-16).log()).sum(1)


LOSSES: dict[str, Loss] = {"gankernels.softmax_kl": _ours, "log(softmax(z) + 1e-16)": _clamped}


def _magnitudes(loss: Loss, gaps: Tensor, dtype: torch.dtype) -> list[float]:
    logits = torch.stack([-gaps, torch.zeros_like(gaps)], 1).to(dtype).requires_grad_()
    target = torch.tensor([1.0, 0.0], dtype=dtype, device="cpu")
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(logits, target).sum(), logits)
    found: list[float] = gradient[:, 0].abs().tolist()
    return found


def _of_logits(real: Tensor, fake: Tensor) -> Any:
    for name, logits in (("real_logits", real), ("fake_logits", fake)):
        check.check_floating(name, logits)
        if logits.dim() not in (2, 3) or not logits.numel():
            raise ValueError(f"{name} must be (N, K) or (T, N, K), got {tuple(logits.shape)}")
    if (real.dim(), real.shape[-1], real.shape[:-2]) != (
        fake.dim(),
        fake.shape[-1],
        fake.shape[:-2],
    ):
        raise ValueError(
            "real_logits and fake_logits must agree but for N, "
            f"got {tuple(real.shape)} and {tuple(fake.shape)}"
        )
    means = tuple(F.softmax(x.detach().double().cpu(), -1).mean(-2) for x in (real, fake))
    if real.dim() == 3:
        return _maps(means[0], means[1], list(range(len(real))), "moment")
    at = torch.linspace(-1, 1, real.shape[1], dtype=torch.float64, device="cpu")
    figure = canvas.figure(7, 3.5)
    axis = figure.add_subplot()
    for name, mean, colour in zip(("real", "fake"), means, (REAL, FAKE), strict=True):
        width = 2 / max(len(at) - 1, 1)
        axis.bar(at.numpy(), mean.numpy(), width, alpha=0.45, color=colour, label=name)
    axis.set_title(f"D of {real.shape[0]:,} real and {fake.shape[0]:,} fake samples")
    axis.set(xlabel="realness of the outcome", ylabel="mean probability")
    canvas.legend(axis)
    return figure


def _maps(real: Tensor, fake: Tensor, steps: list[int], unit: str) -> Any:
    """``(T, K)`` distributions as two maps on one scale, and the mean realness of both."""
    at = torch.linspace(-1, 1, real.shape[1], dtype=torch.float64, device="cpu")
    figure = canvas.figure(9, 3.2)
    axes = figure.subplots(1, 3)
    top = float(torch.cat([real, fake]).max())
    for axis, name, masses in zip(axes, ("real", "fake"), (real, fake), strict=False):
        mesh = axis.pcolormesh(
            steps, at.numpy(), masses.T.numpy(), vmin=0, vmax=top, shading="nearest"
        )
        axis.set(title=f"D of {name} samples", xlabel=unit)
    axes[0].set_ylabel("realness of the outcome")
    figure.colorbar(mesh, ax=axes[1], label="mean probability")
    for name, masses, colour in (("real", real, REAL), ("fake", fake, FAKE)):
        axes[2].plot(steps, (masses @ at).numpy(), color=colour, label=name, marker=".")
    axes[2].set(title="mean realness", xlabel=unit, ylim=(-1.05, 1.05))
    axes[2].grid(alpha=0.3)
    canvas.legend(axes[2])
    return figure


def _anchors_of(source: Any) -> tuple[Tensor, Tensor]:
    if hasattr(source, "real_anchor"):
        return source.real_anchor, source.fake_anchor
    if not isinstance(source, str | Path):
        return source[0], source[1]
    for record in reversed(read_metrics(source)):
        if "real_anchor" in record:
            real, fake = (
                torch.tensor(record[f"{name}_anchor"], dtype=torch.float64, device="cpu")
                for name in ("real", "fake")
            )
            return real, fake
    raise ValueError(f"source must be a run with the realness loss, got {source} without anchors")


def _pair(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    for name, anchor in zip(("real_anchor", "fake_anchor"), pair, strict=True):
        check.check_floating(name, anchor)
        if anchor.dim() != 1:
            raise ValueError(f"{name} must be (K,), got {tuple(anchor.shape)}")
    check.check_same_shape("real_anchor", pair[0], "fake_anchor", pair[1])
    real, fake = (anchor.detach().double().cpu() for anchor in pair)
    return real, fake


def _jensen_shannon(a: Tensor, b: Tensor) -> float:
    a, b = a / a.sum(), b / b.sum()
    mean = (a + b) / 2
    return float(sum(torch.special.xlogy(p, p / mean).nansum() for p in (a, b)) / 2)
