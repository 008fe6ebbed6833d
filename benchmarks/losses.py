"""Every loss against what users would otherwise write: forward + backward, forward, value_and_grad."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import gankernels as gk
from benchmarks import formulas
from benchmarks.timing import Measurement, paired_ratio
from gankernels import testing
from gankernels._scalar import SCALAR_LOSSES

ROWS = {row.name: row for row in testing.OPERATORS}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Case:
    """One row of the table: contenders by name; "gankernels" is ours, "floor: ..." are not rivals."""

    operator: str
    shape: tuple[int, ...]
    dtype: str
    contenders: dict[str, Callable[[], object]]


def two_batches(
    shape: tuple[int, ...], dtype: torch.dtype, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Real and fake logits that require grad; the same numbers on every device."""
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(shape, generator=generator).to(device, dtype) for _ in range(2))
    return real.requires_grad_(), fake.requires_grad_()


def _floors(real: Tensor, fake: Tensor) -> dict[str, Callable[[], object]]:
    """The autograd engine around a node that does nothing, and a copy of the compulsory bytes.

    The copy writes to memory that it has written before; `fresh` writes to memory that the
    allocator hands out, as every operator that returns a gradient must, page faults included.
    """
    sources = real.detach(), fake.detach()
    out = [torch.empty_like(x) for x in sources]
    loss = torch.zeros(())

    def copy() -> None:
        for destination, source in zip(out, sources, strict=True):
            destination.copy_(source)

    def fresh() -> list[Tensor]:
        return [x.clone() for x in sources]

    def engine() -> object:
        scalar = formulas.NoOperation.apply(real, fake, loss)
        return torch.autograd.grad(scalar, (real, fake), allow_unused=True)

    return {"floor: engine": engine, "floor: copy": copy, "floor: copy to fresh memory": fresh}


def check(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], leaves: Sequence[Tensor]
) -> None:
    """Before anything is timed: our gradients are at most twice as far from float64's as a rival's.

    Args:
        ours, theirs: The loss as a function of the leaves.
    """
    exact = [x.detach().double().requires_grad_() for x in leaves]
    expected = torch.autograd.grad(theirs(*exact), exact)
    mine = torch.autograd.grad(ours(*leaves), leaves)
    other = torch.autograd.grad(theirs(*leaves), leaves)
    for a, b, truth in zip(mine, other, expected, strict=True):
        finfo = torch.finfo(a.dtype)
        error, rival = ((x.double() - truth).abs().max() for x in (a, b))
        # The last rounding of the gradient; the gradients of fp16 reach its subnormal numbers.
        rounding = 16 * finfo.eps * truth.abs().max() + finfo.smallest_normal * finfo.eps
        if error > 2 * rival + rounding:
            raise AssertionError(
                f"gradients are off by {error:.2e}, those of the rival by {rival:.2e}"
            )


def forward_backward(
    name: str,
    loss: Callable[[], Tensor],
    leaves: Sequence[Tensor],
    compiled: bool = False,
) -> dict[str, Callable[[], object]]:
    """Forward + backward of a loss and, where asked for, of the same under torch.compile."""

    def backward(of: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(of(), leaves)

    made = {name: backward(loss)}
    if compiled:
        made[f"{name}, compiled"] = backward(torch.compile(lambda: loss(), dynamic=False))
    return made


def _seeded(
    fused: Callable[[], tuple[Tensor, Sequence[Tensor]]], leaves: Sequence[Tensor]
) -> Callable[[], object]:
    """`value_and_grad`, its gradients then sent through the engine as the roots' own."""
    return lambda: torch.autograd.grad(leaves, leaves, fused()[1])


def _forward(loss: Callable[[], Tensor]) -> Callable[[], object]:
    def run() -> Tensor:
        with torch.no_grad():
            return loss()

    return run


def realness_d(shape: tuple[int, ...], dtype: str, compiled: bool = False) -> Case:
    """Logits of ``shape``, the classes along its second dimension: a patch map has more behind it."""
    real, fake = leaves = two_batches(shape, DTYPES[dtype])
    # Full support: an empty bin would make the formulas with an epsilon differ, and that is not timed here.
    a1, a0 = (gk.anchors.gaussian(shape[1], mean, 1, -2, 2) for mean in (1, -1))
    positions = [1] * (len(shape) - 2)
    anchors = tuple(a.to(DTYPES[dtype]).view(-1, *positions) for a in (a1, a0))
    fused = gk.value_and_grad(gk.realness_d_loss)
    check(
        lambda *x: gk.realness_d_loss(*x, a1, a0),
        lambda *x: formulas.kl_div_realness_d(*x, *(a.to(x[0].dtype) for a in anchors)),
        leaves,
    )
    ours = partial(gk.realness_d_loss, real, fake, a1, a0)
    contenders = forward_backward("gankernels", ours, leaves, compiled)
    contenders["gankernels value_and_grad"] = lambda: fused(real, fake, a1, a0)
    contenders["gankernels value_and_grad + engine"] = _seeded(
        lambda: fused(real, fake, a1, a0), leaves
    )
    contenders["gankernels forward"] = _forward(ours)
    for name, formula in formulas.REALNESS_D.items():
        loss = partial(formula, real, fake, *anchors)
        contenders |= forward_backward(name, loss, leaves, compiled)
    best = partial(formulas.cross_entropy_realness_d, real, fake, *anchors)
    contenders["F.cross_entropy forward"] = _forward(best)
    return Case("realness_d_loss", shape, dtype, contenders | _floors(real, fake))


def logistic_d(shape: tuple[int, ...], dtype: str, compiled: bool = False) -> Case:
    real, fake = leaves = two_batches(shape, DTYPES[dtype])
    fused = gk.value_and_grad(gk.logistic_d_loss)
    check(gk.logistic_d_loss, formulas.bce_logistic_d, leaves)
    contenders = forward_backward("gankernels", lambda: gk.logistic_d_loss(real, fake), leaves)
    contenders["gankernels value_and_grad"] = lambda: fused(real, fake)
    contenders["gankernels value_and_grad + engine"] = _seeded(lambda: fused(real, fake), leaves)
    contenders["gankernels forward"] = _forward(lambda: gk.logistic_d_loss(real, fake))
    for name, formula in formulas.LOGISTIC_D.items():
        contenders |= forward_backward(name, partial(formula, real, fake), leaves, compiled)
    contenders["BCE with logits forward"] = _forward(partial(formulas.bce_logistic_d, real, fake))
    return Case("logistic_d_loss", shape, dtype, contenders | _floors(real, fake))


def operator(name: str, shape: tuple[int, ...], options: Mapping[str, Any] | None = None) -> Case:
    """A row of the operator table against its formula in plain PyTorch, eager and compiled."""
    row = ROWS[name]
    arguments = row.draw(testing.Case(shape=shape, options=options or {}))
    names = row.inputs(arguments)
    leaves = [arguments[n].requires_grad_() for n in names]
    ours, plain = partial(row.functional, **arguments), partial(row.eager, **arguments)
    check(
        lambda *x: ours(**dict(zip(names, x, strict=True))).sum(),
        lambda *x: plain(**dict(zip(names, x, strict=True))).sum(),
        leaves,
    )
    if row.reductions:
        contenders = forward_backward("gankernels", ours, leaves)
        fused = gk.value_and_grad(row.functional)
        contenders["gankernels value_and_grad"] = lambda: fused(**arguments)
        contenders["gankernels forward"] = _forward(ours)
        contenders |= forward_backward("plain PyTorch", plain, leaves, compiled=True)
    else:
        contenders = forward_backward("gankernels", lambda: ours().sum(), leaves)
        contenders |= forward_backward(
            "plain PyTorch", lambda: plain().sum(), leaves, compiled=True
        )
    label = name + "".join(f" {k}={v}" for k, v in (options or {}).items())
    return Case(label, shape, "fp32", contenders)


def each(name: str, shape: tuple[int, ...]) -> Case:
    """A loss of every element, for code that weighs them itself: its mean stands for that here."""
    loss, formula = getattr(gk, name), formulas.EACH[name]
    leaves = two_batches(shape, torch.float32)[: len(SCALAR_LOSSES[name].arguments)]

    def ours(*x: Tensor) -> Tensor:
        return loss(*x, reduction="none").mean()

    def plain(*x: Tensor) -> Tensor:
        return formula(*x).mean()

    check(ours, plain, leaves)
    contenders = forward_backward("gankernels", lambda: ours(*leaves), leaves)
    contenders |= forward_backward("plain PyTorch", lambda: plain(*leaves), leaves)
    return Case(f"{name} reduction=none", shape, "fp32", contenders)


def resampled(n: int, k: int, dtype: str) -> Case:
    """Losses from statistics with given noise: the fused operator against resampling first."""
    real, fake = two_batches((n, 2 * k), DTYPES[dtype])
    noise = torch.randn(n, k), torch.randn(n, k)
    a1, a0 = gk.anchors.gaussian(k, 1, 1, -2, 2), gk.anchors.gaussian(k, -1, 1, -2, 2)

    def fused(*x: Tensor) -> Tensor:
        return gk.resampled_realness_d_loss(*x, a1, a0, real_noise=noise[0], fake_noise=noise[1])

    def chained(*x: Tensor) -> Tensor:
        drawn = (gk.resample_logits(s, noise=e) for s, e in zip(x, noise, strict=True))
        return gk.realness_d_loss(*drawn, a1, a0)

    def stock(*x: Tensor) -> Tensor:
        drawn = []
        for statistics, e in zip(x, noise, strict=True):
            mean, log_variance = statistics.chunk(2, 1)
            drawn.append(mean + e * (0.5 * log_variance).exp())
        return formulas.kl_div_realness_d(*drawn, a1.to(x[0].dtype), a0.to(x[0].dtype))

    check(fused, stock, (real, fake))

    def backward(loss: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss(real, fake), (real, fake))

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
    x = two_batches(shape, DTYPES[dtype])[0]
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
    lambda: realness_d((128, 20), "fp32"),
    lambda: realness_d((128, 51), "fp32"),
    lambda: realness_d((4096, 1024), "fp32"),
    lambda: realness_d((4096, 1024), "bf16"),
    lambda: resampled(128, 51, "fp32"),
    lambda: logistic_d((128,), "fp32"),
    lambda: logistic_d((64, 1, 30, 30), "fp32"),
    lambda: reversal((64, 3, 64, 64), "fp32"),
]

_SMALL = ((32, 20), (128, 1), (128, 2), (128, 20), (128, 51), (512, 51), (4096, 20), (4096, 64))
_MAPS = ((16, 20, 30, 30),)
_LARGE = ((4096, 1024), (1024, 4096), (1024, 32768))
_COMPILED = ((128, 20), (128, 51), (4096, 64), (4096, 1024), (1024, 32768))
_HALF = ((128, 20), (128, 51), (4096, 64), (4096, 1024), (1024, 32768))
_SCALAR = ((32,), (128,), (4096,), (64, 1, 30, 30), (1024, 1024))


def _table() -> list[Callable[[], Case]]:
    """Every operator of the table that no other case covers, at one GAN shape each."""
    covered = {"realness_d_loss", "logistic_d_loss", "resampled_realness_d_loss"}
    made: list[Callable[[], Case]] = []
    for name, row in ROWS.items():
        if name in covered or not row.true_derivative or row.writes:
            continue
        for options in row.options:
            by_class = "dim" in row.draw(testing.Case(options=options))
            made.append(partial(operator, name, (128, 20) if by_class else (128,), options))
    return made


FULL = [
    *(
        partial(realness_d, shape, "fp32", compiled=shape in _COMPILED)
        for shape in _SMALL + _MAPS + _LARGE
    ),
    *(partial(realness_d, shape, "bf16") for shape in _HALF),
    *(partial(realness_d, shape, "fp16") for shape in _HALF[:-1]),
    *(partial(resampled, n, 51, "fp32") for n in (128, 4096)),
    *(
        partial(logistic_d, shape, "fp32", compiled=shape in ((128,), (64, 1, 30, 30)))
        for shape in _SCALAR
    ),
    *(partial(logistic_d, shape, dtype) for dtype in ("bf16", "fp16") for shape in _SCALAR[1::2]),
    *_table(),
    partial(reversal, (64, 3, 32, 32), "fp32"),
    partial(reversal, (64, 3, 64, 64), "fp32"),
]

EACH = [partial(each, name, shape) for name in formulas.EACH for shape in _SCALAR]


# ------------------------------------------------------------------------------------------ rows

OURS = "gankernels"


def is_rival(contender: str) -> bool:
    """Whether a contender is somebody else's way to the same loss, forward and backward."""
    return OURS not in contender and ":" not in contender and not contender.endswith("forward")


def rows_of(case: Case, measured: dict[str, Measurement]) -> list[dict[str, Any]]:
    """One row per contender: microseconds, and how many times longer than ours it takes."""
    ours = measured[OURS]
    floor = measured.get("floor: engine")
    copy = measured.get("floor: copy")
    return [
        {
            "operator": case.operator,
            "shape": "x".join(map(str, case.shape)),
            "dtype": case.dtype,
            "contender": name,
            "median_us": round(m.median, 2),
            "p20_us": round(m.percentile(20), 2),
            "p80_us": round(m.percentile(80), 2),
            "ratio_to_ours": round(paired_ratio(m, ours), 3),
            "engine_share": round(paired_ratio(floor, m), 3) if floor else None,
            "copy_share": round(paired_ratio(copy, m), 3) if copy else None,
        }
        for name, m in measured.items()
    ]


def print_rows(rows: list[dict[str, Any]]) -> None:
    head = rows[0]
    print(f"\n{head['operator']} {head['shape']} {head['dtype']}, forward + backward")
    print(f"  {'':28}{'median us':>12}{'p20':>10}{'p80':>10}{'x ours':>9}")
    for row in rows:
        loses = row["ratio_to_ours"] < 1 and is_rival(row["contender"])
        print(
            f"  {row['contender']:28}{row['median_us']:12.1f}{row['p20_us']:10.1f}{row['p80_us']:10.1f}"
            f"{row['ratio_to_ours']:9.2f}{'   faster than ours' if loses else ''}"
        )
