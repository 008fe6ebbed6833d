"""The losses of the scripts in examples/dropin, as they were and as they are: forward + backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import gankernels as gk
from benchmarks import losses
from benchmarks.timing import interleaved, paired_ratio
from examples.dropin.compare import STYLES, difference, missing
from examples.dropin.plain import (
    adaptive_weight,
    categorical,
    distillation,
    domain_head,
    gan_loss,
    multi_scale,
    realness_kl,
)
from examples.dropin.shared import anchors

Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """One loss of one style.

    Args:
        style: Name of the script.
        write: What the switched script says.
        shapes: Of the leaves that the losses are functions of.
        eager, ours: The loss before and after.
        moved: Also time a pass over the compulsory bytes: two tensors read, one written.
    """

    style: str
    write: str
    shapes: Sequence[tuple[int, ...]]
    eager: Loss
    ours: Loss
    moved: bool = False

    @property
    def shape(self) -> str:
        """The shapes as a table shows them."""
        first, *others = dict.fromkeys("x".join(map(str, s)) for s in self.shapes)
        return f"{len(self.shapes)} of {first}" + (f" to {others[-1]}" if others else "")

    def leaves(self) -> list[Tensor]:
        draws = torch.Generator().manual_seed(0)
        return [torch.randn(s, generator=draws).requires_grad_() for s in self.shapes]


def _labelled(criterion: Callable[[Tensor, Tensor], Tensor], x: Tensor, label: float) -> Tensor:
    return criterion(x, torch.full_like(x, label))


def _bce_sigmoid(real: Tensor, fake: Tensor) -> Tensor:
    bce = F.binary_cross_entropy
    return _labelled(bce, real.sigmoid(), 1.0) + _labelled(bce, fake.sigmoid(), 0.0)


def _halves(function: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]) -> Loss:
    """A loss of two lists as a function of all their tensors."""
    return lambda *x: function(x[: len(x) // 2], x[len(x) // 2 :])


def _feature_leaves(*fake: Tensor) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    return [_REAL_MAPS], [list(fake)]


_REAL_MAPS = list(torch.randn(5, 4, 128, 500, generator=torch.Generator().manual_seed(1)))
# A vocoder's: periods 2, 3, 5, 7, 11 of 8,192 samples, and three scales of them.
_VOCODER = [(16, 1, -(-8192 // (81 * p)), p) for p in (2, 3, 5, 7, 11)] + [
    (16, 1, 128 // s) for s in (1, 2, 4)
]
_A1_20, _A0_20 = anchors(20)
_A1_51, _A0_51 = anchors(51)
_THEIR_CATEGORICAL = categorical.CategoricalLoss(51, 1.0, -1.0)
_OUR_CATEGORICAL = gk.compat.CategoricalLoss(51, 1.0, -1.0)
_THEIR_GAN, _OUR_GAN = gan_loss.GANLoss("lsgan"), gk.compat.GANLoss("lsgan")
_T = distillation.TEMPERATURE
_TEACHER = torch.randn(128, 1000, generator=torch.Generator().manual_seed(2))


def _distilled(student: Tensor) -> Tensor:
    options = {"dim": -1, "reduction": "batchmean"}
    return gk.softmax_kl_logits(_TEACHER, student, **options, temperature=_T, scale=_T**2)


def _realness(real: Tensor, fake: Tensor) -> Tensor:
    kl = realness_kl.kl_divergence
    return kl(_A1_20, real.softmax(1)) + kl(_A0_20, fake.softmax(1))


def _categorical(loss: Loss) -> Loss:
    def of_both(real: Tensor, fake: Tensor) -> Tensor:
        a1, a0 = (a.to(real.dtype).expand(128, 51) for a in (_A1_51, _A0_51))
        real_term = loss(a1, real.softmax(1), skewness=1.0)
        return real_term + loss(a0, fake.softmax(1), skewness=-1.0)

    return of_both


def _gan(loss: Loss) -> Loss:
    return lambda real, fake: loss(real, True, is_disc=True) + loss(fake, False, is_disc=True)


CASES = [
    Case(
        "dcgan_logits",
        "`logistic_d_real_loss(x)`, `logistic_d_fake_loss(x)`",
        [(128,)],
        lambda x: _labelled(F.binary_cross_entropy_with_logits, x, 1.0),
        gk.logistic_d_real_loss,
    ),
    Case(
        "dcgan_sigmoid",
        "`logistic_d_loss(real, fake)`, without the sigmoid",
        [(128, 1)] * 2,
        _bce_sigmoid,
        gk.logistic_d_loss,
    ),
    Case(
        "realness_kl",
        "`realness_d_loss(real, fake, A1, A0)`",
        [(128, 20)] * 2,
        _realness,
        lambda real, fake: gk.realness_d_loss(real, fake, _A1_20, _A0_20),
    ),
    Case(
        "categorical",
        "`compat.CategoricalLoss`",
        [(128, 51)] * 2,
        _categorical(_THEIR_CATEGORICAL),
        _categorical(_OUR_CATEGORICAL),
    ),
    Case("gan_loss", "`compat.GANLoss`", [(16, 1, 30, 30)] * 2, _gan(_THEIR_GAN), _gan(_OUR_GAN)),
    Case(
        "multi_scale",
        "`lsgan_d_loss([...], [...], scale=2)`",
        [*_VOCODER, *_VOCODER],
        _halves(multi_scale.discriminator_loss),
        _halves(lambda real, fake: gk.lsgan_d_loss(real, fake, scale=2)),
    ),
    Case(
        "multi_scale",
        "`feature_matching_loss(real, fake, scale=2)`",
        [(4, 128, 500)] * 5,
        lambda *fake: multi_scale.feature_loss(*_feature_leaves(*fake)),
        lambda *fake: gk.feature_matching_loss(*_feature_leaves(*fake), scale=2),
        moved=True,
    ),
    Case(
        "adaptive_weight",
        "`hinge_d_loss(real, fake, scale=0.5)`",
        [(4, 1, 30, 30)] * 2,
        adaptive_weight.hinge_d_loss,
        lambda real, fake: gk.hinge_d_loss(real, fake, scale=0.5),
    ),
    Case(
        "softplus_r1",
        "`nonsaturating_g_loss(x)`",
        [(32, 1)],
        lambda x: F.softplus(-x).mean(),
        gk.nonsaturating_g_loss,
    ),
    Case(
        "pairing",
        "`relativistic_pairing_d_loss(real, fake)`",
        [(64, 1)] * 2,
        lambda real, fake: F.softplus(-(real - fake)).mean(),
        gk.relativistic_pairing_d_loss,
    ),
    Case(
        "domain_head",
        "`gradient_reversal(x, alpha)`",
        [(64, 256)],
        # Between two layers, as it is used: the gradient that arrives is nobody else's.
        lambda x: (domain_head.ReverseLayerF.apply(x * 2, 0.5) * 3).sum(),
        lambda x: (gk.gradient_reversal(x * 2, 0.5) * 3).sum(),
    ),
    Case(
        "distillation",
        "`softmax_kl_logits(teacher, student, temperature=T, scale=T**2)`",
        [(128, 1000)],
        lambda x: distillation.distillation_loss(x, _TEACHER),
        _distilled,
    ),
    Case(
        "lightning_manual",
        "`logistic_d_loss(real, fake)`",
        [(128, 1)] * 2,
        lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
        gk.logistic_d_loss,
    ),
    Case(
        "accelerate_loop",
        "`hinge_d_loss(real, fake)`",
        [(128, 1)] * 2,
        lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
        gk.hinge_d_loss,
    ),
]


def _contenders(case: Case, leaves: list[Tensor]) -> dict[str, Callable[[], Any]]:
    made: dict[str, Callable[[], Any]] = {
        losses.OURS: lambda: torch.autograd.grad(case.ours(*leaves), leaves),
        "plain PyTorch": lambda: torch.autograd.grad(case.eager(*leaves), leaves),
    }
    if case.moved:
        read = [x.detach() for x in leaves]
        written = [torch.empty_like(x) for x in read]
        made["floor: copy"] = lambda: [
            torch.sub(x, y, out=out) for x, y, out in zip(read, _REAL_MAPS, written, strict=True)
        ]
    return made


def rows_of(case: Case, threads: int, rounds: int, **timing: float) -> dict[str, Any]:
    """A case before and after, checked and then timed."""
    leaves = case.leaves()
    losses.check(case.ours, case.eager, leaves)
    measured = interleaved(_contenders(case, leaves), threads=threads, rounds=rounds, **timing)
    ours, plain = measured[losses.OURS], measured["plain PyTorch"]
    copy = measured.get("floor: copy")
    return {
        "style": case.style,
        "write": case.write,
        "shape": case.shape,
        "eager_us": round(plain.median, 2),
        "ours_us": round(ours.median, 2),
        "ratio": round(paired_ratio(plain, ours), 3),
        "times_copy": round(paired_ratio(ours, copy), 3) if copy else None,
    }


def measure(threads: int, rounds: int) -> list[dict[str, Any]]:
    """A row for every case, with the differences of the style's two scripts."""
    differences = {
        style: {
            f"difference_{name}": None if missing(style) else difference(style, dtype)
            for name, dtype in (("float64", torch.float64), ("float32", torch.float32))
        }
        for style in STYLES
    }
    return [rows_of(case, threads, rounds) | differences[case.style] for case in CASES]


def print_rows(rows: list[dict[str, Any]]) -> None:
    print("\nlosses of examples/dropin, forward + backward")
    print(f"  {'style':18}{'shape':34}{'eager us':>10}{'ours us':>10}{'ratio':>8}")
    for r in rows:
        copy = f"  {r['times_copy']:.2f} times a copy" if r["times_copy"] else ""
        print(
            f"  {r['style']:18}{r['shape'][:32]:34}{r['eager_us']:10.1f}{r['ours_us']:10.1f}"
            f"{r['ratio']:8.2f}{copy}"
        )
