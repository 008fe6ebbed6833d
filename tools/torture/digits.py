"""Float64 against fifty digits: the kernels, and the reference that everything else is compared with."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import mpmath
import torch
from torch import Tensor

from gankernels import functional, reference
from gankernels.testing.accuracy import tolerance
from tools.torture.attack import Found

ROWS = 12_000
MAGNITUDES = (1e-300, 1e-8, 1e-3, 1.0, 30.0, 700.0)
Numbers = list[Any]


def log_softmax(z: Numbers) -> Numbers:
    total = mpmath.log(mpmath.fsum(mpmath.exp(x) for x in z))
    return [x - total for x in z]


def softmax_kl(z: Numbers, p: Numbers) -> tuple[Any, Numbers]:
    """sum p (log p - log q) and its derivative (sum p) q - p, with q = softmax(z)."""
    log_q, mass = log_softmax(z), mpmath.fsum(p)
    value = mpmath.fsum(a * (mpmath.log(a) - b) for a, b in zip(p, log_q, strict=True) if a)
    return value, [mass * mpmath.exp(b) - a for a, b in zip(p, log_q, strict=True)]


def softmax_kl_logits(z: Numbers, y: Numbers) -> tuple[Any, Numbers]:
    """sum p (log p - log q) and its derivative p (log p - log q - loss), with p = softmax(z), q = softmax(y)."""
    log_p, log_q = log_softmax(z), log_softmax(y)
    ratios = [a - b for a, b in zip(log_p, log_q, strict=True)]
    value = mpmath.fsum(mpmath.exp(a) * r for a, r in zip(log_p, ratios, strict=True))
    return value, [mpmath.exp(a) * (r - value) for a, r in zip(log_p, ratios, strict=True)]


def js_divergence(z: Numbers, y: Numbers) -> tuple[Any, Numbers]:
    """(KL(p || m) + KL(q || m)) / 2 and its derivative p (log p - log m - KL(p || m)) / 2, p = softmax(z)."""
    log_p, log_q = log_softmax(z), log_softmax(y)
    log_m = [
        mpmath.log((mpmath.exp(a) + mpmath.exp(b)) / 2) for a, b in zip(log_p, log_q, strict=True)
    ]
    from_m = [[a - m for a, m in zip(log, log_m, strict=True)] for log in (log_p, log_q)]
    parts = [
        mpmath.fsum(mpmath.exp(a) * r for a, r in zip(log, ratios, strict=True))
        for log, ratios in zip((log_p, log_q), from_m, strict=True)
    ]
    slopes = [mpmath.exp(a) * (r - parts[0]) / 2 for a, r in zip(log_p, from_m[0], strict=True)]
    return mpmath.fsum(parts) / 2, slopes


def logistic(z: Numbers, _: Numbers) -> tuple[Any, Numbers]:
    """sum softplus(z) and its derivative sigmoid(z)."""
    value = mpmath.fsum(mpmath.log1p(mpmath.exp(x)) for x in z)
    return value, [1 / (1 + mpmath.exp(-x)) for x in z]


def _of_rows(module: Any, name: str) -> Callable[[Tensor, Tensor], Tensor]:
    function = getattr(module, name)
    return lambda z, other: function(z[None], other[None], reduction="sum")  # type: ignore[no-any-return]


def _of_elements(module: Any, name: str) -> Callable[[Tensor, Tensor], Tensor]:
    function = getattr(module, name)
    return lambda z, _: function(z, reduction="sum")  # type: ignore[no-any-return]


FORMULAS = {
    "softmax_kl": (softmax_kl, _of_rows),
    "softmax_kl_logits": (softmax_kl_logits, _of_rows),
    "js_divergence": (js_divergence, _of_rows),
    "logistic_d_fake_loss": (logistic, _of_elements),
}


def drawn(rng: random.Random, name: str) -> tuple[Tensor, Tensor]:
    """Logits, and what the formula takes beside them: a distribution with empty bins, or other logits."""
    classes, magnitude = rng.randint(1, 30), rng.choice(MAGNITUDES)
    z = [rng.gauss(0, magnitude) for _ in range(classes)]
    other = [rng.gauss(0, magnitude) for _ in range(classes)]
    if name == "softmax_kl":
        other = [abs(x) if rng.random() < 0.7 else 0.0 for x in other]
        other = [x / (sum(other) or 1.0) for x in other]
    return torch.tensor(z, dtype=torch.float64), torch.tensor(other, dtype=torch.float64)


def near(got: Tensor, exact: Sequence[Any], magnitude: float) -> None:
    """Within what rounding explains, of the exact numbers rounded once."""
    rounded = torch.tensor([float(x) for x in exact], dtype=torch.float64)
    allowed = tolerance(rounded, rounded, torch.float64, magnitude=magnitude, terms=len(exact))
    wrong = ~((got.reshape(-1) - rounded).abs() <= allowed)
    if bool(wrong.any()):
        raise AssertionError(f"got {got.reshape(-1)[wrong]}, expected {rounded[wrong]}")


def check(module: Any, name: str, z: Tensor, other: Tensor) -> None:
    formula, caller = FORMULAS[name]
    exact, derivative = formula(
        [mpmath.mpf(x) for x in z.tolist()], [mpmath.mpf(x) for x in other.tolist()]
    )
    leaf = z.clone().requires_grad_()
    value = caller(module, name)(leaf, other)
    value.backward()  # type: ignore[no-untyped-call]
    largest = float(z.abs().max()) + float(other.abs().max())
    # A loss is a difference of logits and logarithms; probabilities times such differences are its gradient.
    size = (largest + 4.0) * (len(z) if name == "logistic_d_fake_loss" else 1)
    near(value.detach(), [exact], size)
    assert leaf.grad is not None
    near(leaf.grad, derivative, size)


def run(share: float) -> Found:
    found, rng = Found(), random.Random(0)
    with mpmath.workdps(50):
        for i in range(max(60, round(share * ROWS))):
            name = [*FORMULAS][i % len(FORMULAS)]
            z, other = drawn(rng, name)
            for module in (functional, reference):
                found.attempt(
                    f"{module.__name__}.{name}({z}, {other})",
                    lambda m=module, n=name, a=z, b=other: check(m, n, a, b),
                )  # type: ignore[misc]
    return found
