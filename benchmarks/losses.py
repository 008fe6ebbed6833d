"""Every loss against what users would otherwise write: forward + backward, forward, value_and_grad."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import gankernels as gk
from benchmarks import formulas

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Case:
    """One row of the table: contenders by name; "gankernels" is ours, "floor: ..." are not rivals."""

    operator: str
    shape: tuple[int, ...]
    dtype: str
    contenders: dict[str, Callable[[], object]]


def _leaves(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    return real.requires_grad_(), fake.requires_grad_()


def _floors(real: Tensor, fake: Tensor) -> dict[str, Callable[[], object]]:
    """The autograd engine around two trivial operators, and a copy of the compulsory bytes."""
    out = torch.empty_like(real), torch.empty_like(fake)

    def copy() -> None:
        out[0].copy_(real.detach())
        out[1].copy_(fake.detach())

    def engine() -> object:
        return torch.autograd.grad(real.view(-1)[0] + fake.view(-1)[0], (real, fake))

    return {"floor: engine": engine, "floor: copy": copy}


def _check(ours: Callable[[], Tensor], theirs: Callable[[], Tensor], *leaves: Tensor) -> None:
    """The gradients agree before anything is timed; a rival's own rounding sets the tolerance."""
    mine = torch.autograd.grad(ours(), leaves)
    other = torch.autograd.grad(theirs(), leaves)
    for a, b in zip(mine, other, strict=True):
        scale = b.abs().max().float()
        difference = (a.float() - b.float()).abs().max()
        limit = 16 * torch.finfo(a.dtype).eps
        if difference > limit * scale:
            raise AssertionError(f"gradients differ by {difference / scale:.2e} of their maximum")


def realness_d(n: int, k: int, dtype: str) -> Case:
    real, fake = _leaves((n, k), DTYPES[dtype])
    # Full support: an empty bin would make the formulas with an epsilon differ, and that is not timed here.
    a1, a0 = gk.anchors.gaussian(k, 1, 1, -2, 2), gk.anchors.gaussian(k, -1, 1, -2, 2)
    anchors = a1.to(DTYPES[dtype]), a0.to(DTYPES[dtype])
    leaves = (real, fake)

    def backward(loss: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss(real, fake, *anchors), leaves)

    def ours() -> object:
        return torch.autograd.grad(gk.realness_d_loss(real, fake, a1, a0), leaves)

    def forward() -> Tensor:
        with torch.no_grad():
            return gk.realness_d_loss(real, fake, a1, a0)

    fused = gk.value_and_grad(gk.realness_d_loss)
    _check(
        lambda: gk.realness_d_loss(real, fake, *anchors),
        lambda: formulas.kl_div_realness_d(real, fake, *anchors),
        *leaves,
    )
    return Case(
        "realness_d_loss",
        (n, k),
        dtype,
        {
            "gankernels": ours,
            "gankernels value_and_grad": lambda: fused(real, fake, a1, a0),
            "gankernels forward": forward,
            "article formula": backward(formulas.epsilon_realness_d),
            "official formula": backward(formulas.categorical_realness_d),
            "F.kl_div": backward(formulas.kl_div_realness_d),
            "F.cross_entropy": backward(formulas.cross_entropy_realness_d),
            **_floors(real, fake),
        },
    )


def logistic_d(shape: tuple[int, ...], dtype: str) -> Case:
    real, fake = _leaves(shape, DTYPES[dtype])
    leaves = (real, fake)
    fused = gk.value_and_grad(gk.logistic_d_loss)

    def backward(loss: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss(real, fake), leaves)

    _check(
        lambda: gk.logistic_d_loss(real, fake),
        lambda: formulas.bce_logistic_d(real, fake),
        *leaves,
    )
    return Case(
        "logistic_d_loss",
        shape,
        dtype,
        {
            "gankernels": backward(gk.logistic_d_loss),
            "gankernels value_and_grad": lambda: fused(real, fake),
            "BCE with logits": backward(formulas.bce_logistic_d),
            "F.softplus": backward(formulas.softplus_logistic_d),
            **_floors(real, fake),
        },
    )


def resampled(n: int, k: int, dtype: str) -> Case:
    """Losses from statistics with given noise: the fused operator against resampling first."""
    real, fake = _leaves((n, 2 * k), DTYPES[dtype])
    noise = torch.randn(n, k), torch.randn(n, k)
    a1, a0 = gk.anchors.gaussian(k, 1, 1, -2, 2), gk.anchors.gaussian(k, -1, 1, -2, 2)

    def fused() -> Tensor:
        return gk.resampled_realness_d_loss(
            real, fake, a1, a0, real_noise=noise[0], fake_noise=noise[1]
        )

    def chained() -> Tensor:
        drawn = (gk.resample_logits(x, noise=e) for x, e in zip((real, fake), noise, strict=True))
        return gk.realness_d_loss(*drawn, a1, a0)

    def stock() -> Tensor:
        drawn = []
        for x, e in zip((real, fake), noise, strict=True):
            mean, log_variance = x.chunk(2, 1)
            drawn.append(mean + e * (0.5 * log_variance).exp())
        return formulas.kl_div_realness_d(*drawn, a1, a0)

    _check(fused, stock, real, fake)

    def backward(loss: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss(), (real, fake))

    return Case(
        "resampled_realness_d_loss",
        (n, 2 * k),
        dtype,
        {
            "gankernels": backward(fused),
            "gankernels, two operators": backward(chained),
            "plain PyTorch": backward(stock),
        },
    )


def reversal(shape: tuple[int, ...], dtype: str) -> Case:
    """Backward through one reversal between two multiplications, whose gradient nobody else holds."""
    x = _leaves(shape, DTYPES[dtype])[0]
    ones = torch.ones_like(x)

    def through(layer: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(layer(x * 2) * 3, x, ones)

    return Case(
        "gradient_reversal",
        shape,
        dtype,
        {
            "gankernels": through(gk.gradient_reversal),
            "-grad layer": through(formulas.NegatedGradient.apply),
            "floor: no layer": through(lambda y: y),
        },
    )


QUICK = [
    lambda: realness_d(128, 20, "fp32"),
    lambda: realness_d(128, 51, "fp32"),
    lambda: realness_d(4096, 1024, "fp32"),
    lambda: realness_d(4096, 1024, "bf16"),
    lambda: resampled(128, 51, "fp32"),
    lambda: logistic_d((128,), "fp32"),
    lambda: logistic_d((64, 1, 30, 30), "fp32"),
    lambda: reversal((64, 3, 64, 64), "fp32"),
]

FULL = [
    *(
        (lambda n=n, k=k, d=d: realness_d(n, k, d))
        for d in DTYPES
        for n, k in (
            (32, 20),
            (128, 2),
            (128, 20),
            (128, 51),
            (512, 51),
            (4096, 20),
            (4096, 64),
            (4096, 1024),
            (1024, 4096),
            (1024, 32768),
        )
    ),
    *(
        (lambda s=s, d=d: logistic_d(s, d))
        for d in DTYPES
        for s in ((32,), (128,), (4096,), (64, 1, 30, 30), (1024, 1024))
    ),
    lambda: reversal((64, 3, 32, 32), "fp32"),
    lambda: reversal((64, 3, 64, 64), "fp32"),
]
