"""Losses of lists of discriminators, with weights, masks, labels and factors, drawn against their formulas."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gankernels import functional
from gankernels._scalar import SCALAR_LOSSES, Side
from gankernels._scalar_call import OPTIONS
from gankernels.reference import accumulation_dtype
from gankernels.testing import DTYPES
from gankernels.testing.accuracy import assert_accurate, largest
from tools.torture.attack import Found

CASES = 12_000
NAMES = tuple(name for name, loss in SCALAR_LOSSES.items() if not loss.relativistic)


def spread(given: Tensor, like: Tensor) -> Tensor:
    """What each sample has, for each of its elements."""
    if given.ndim == like.ndim:
        return given
    return given.reshape(-1, *[1] * (like.ndim - 1)).expand(like.shape)


class Drawn:
    """A call: logits of each side and discriminator, what else it is given, and its formula."""

    def __init__(self, rng: random.Random, name: str) -> None:
        self.name, self.loss, self.rng = name, SCALAR_LOSSES[name], rng
        self.generator = torch.Generator().manual_seed(rng.getrandbits(31))
        self.listed = rng.random() < 0.7
        count = rng.randint(1, 15) if self.listed else 1
        self.dtype = rng.choice([None, *DTYPES])  # None: each tensor its own
        self.sides = [x.removesuffix("_logits") for x in self.loss.arguments]
        self.parts = ["pair"] if self.loss.pair is not None else self.sides
        shapes = [self.shape() for _ in range(count)]
        self.logits = {
            side: [self.numbers(s if self.loss.pair is not None else self.near(s)) for s in shapes]
            for side in self.sides
        }
        self.reduction = rng.choice(["mean", "sum"])
        self.options = self.drawn_options()
        self.factor = rng.choice([1.0, 0.5, 1024.0, 1e-3])  # of the gradient that comes in

    def shape(self) -> tuple[int, ...]:
        return tuple(self.rng.randint(1, 6) for _ in range(self.rng.randint(1, 4)))

    def near(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Batches of real and fake logits may differ."""
        return (self.rng.randint(1, 6), *shape[1:])

    def numbers(self, shape: Sequence[int]) -> Tensor:
        x = torch.randn(shape, generator=self.generator, dtype=torch.float64) * self.rng.choice(
            [0.1, 3, 30]
        )
        return x.to(self.dtype or self.rng.choice(DTYPES))

    def drawn_options(self) -> dict[str, Any]:
        rng, allowed = self.rng, OPTIONS[self.name]
        found: dict[str, Any] = {"scale": rng.choice([1.0, 0.3, -2.0])}
        for label in ("real_label", "fake_label", "label"):
            if label in allowed and rng.random() < 0.5:
                found[label] = rng.choice([0.0, 0.25, 0.9, 1.0])
        for part in self.parts:
            for kind in ("weight", "mask"):
                option = kind if kind in allowed else f"{part}_{kind}"
                if rng.random() < 0.4:
                    each = [
                        self.of_elements(kind, x)
                        for x in self.logits[self.sides[0] if part == "pair" else part]
                    ]
                    found[option] = each if self.listed else each[0]
        if self.listed and rng.random() < 0.5:
            found["average"] = True
        if "return_terms" in allowed and rng.random() < 0.3:
            found["return_terms"] = True
        return found

    def of_elements(self, kind: str, logits: Tensor) -> Tensor | None:
        if self.listed and self.rng.random() < 0.2:
            return None
        shape = logits.shape if self.rng.random() < 0.5 else logits.shape[:1]
        x = torch.rand(shape, generator=self.generator)
        return x > 0.4 if kind == "mask" else x

    def given(self, part: str, kind: str, i: int) -> Tensor | None:
        """The weight or mask of a term of one discriminator."""
        name = kind if kind in OPTIONS[self.name] else f"{part}_{kind}"
        found = self.options.get(name)
        return found[i] if isinstance(found, list) else found

    def term(
        self, part: str, i: int, logits: dict[str, list[Tensor]], dtype: torch.dtype
    ) -> Tensor:
        side: Side = getattr(self.loss, part)
        x = (
            logits["real"][i].to(dtype) - logits["fake"][i].to(dtype)
            if part == "pair"
            else logits[part][i].to(dtype)
        )
        label = self.options.get(f"{part}_label", self.options.get("label", side.label))
        rows = side.formula(x, label)
        if (weight := self.given(part, "weight", i)) is not None:
            rows = rows * spread(weight.to(dtype), x)
        count = rows.numel()
        if (mask := self.given(part, "mask", i)) is not None:
            rows = rows[spread(mask, x)]
            count = max(rows.numel(), 1)
        return rows.sum() / count if self.reduction == "mean" else rows.sum()

    def formula(self, logits: dict[str, list[Tensor]], dtype: torch.dtype) -> Tensor:
        """The terms apart, as a vector."""
        count = len(logits[self.sides[0]])
        terms = [
            torch.stack([self.term(p, i, logits, dtype) for i in range(count)]).sum()
            for p in self.parts
        ]
        factor = self.options["scale"] / (count if self.options.get("average") else 1)
        return torch.stack(terms) * factor

    def call(self, logits: dict[str, list[Tensor]]) -> Tensor:
        arguments = [logits[s] if self.listed else logits[s][0] for s in self.sides]
        found = getattr(functional, self.name)(*arguments, self.reduction, **self.options)
        return torch.stack(found) if isinstance(found, tuple) else found.reshape(1)


def differentiated(
    drawn: Drawn, function: Callable[[dict[str, list[Tensor]]], Tensor]
) -> tuple[Tensor, list[Tensor]]:
    leaves = {
        s: [x.clone().requires_grad_() for x in tensors] for s, tensors in drawn.logits.items()
    }
    value = function(leaves)
    whole = value if drawn.options.get("return_terms") else value.sum().reshape(1)
    flat = [x for tensors in leaves.values() for x in tensors]
    return whole.detach(), list(torch.autograd.grad(whole.sum() * drawn.factor, flat))


def check(drawn: Drawn) -> None:
    tensors = [x for given in drawn.logits.values() for x in given]
    got, gradients = differentiated(drawn, drawn.call)
    exact, exact_gradients = differentiated(drawn, lambda x: drawn.formula(x, torch.float64))
    eager, eager_gradients = differentiated(drawn, lambda x: drawn.formula(x, torch.float32))
    if got.dtype == torch.float64:
        eager = exact
    size = abs(drawn.options["scale"]) * sum(
        float(x.double().square().sum()) + x.numel() for x in tensors
    )
    assert_accurate(
        "value", got, exact, eager, got.dtype, got.dtype, size, sum(x.numel() for x in tensors)
    )
    for x, g, e, y in zip(tensors, gradients, exact_gradients, eager_gradients, strict=True):
        kind = accumulation_dtype(x.dtype)
        size = largest(x.double()) + 1.0
        assert_accurate(
            f"gradient of {list(x.shape)}", g, e, y, x.dtype, kind, size * abs(drawn.factor)
        )


def run(share: float) -> Found:
    found, rng = Found(), random.Random(0)
    for i in range(max(len(NAMES), round(share * CASES))):
        drawn = Drawn(rng, NAMES[i % len(NAMES)])
        found.attempt(
            f"{drawn.name} of {drawn.logits} with {drawn.reduction}, {drawn.options}",
            lambda drawn=drawn: check(drawn),  # type: ignore[misc]
        )
    return found
