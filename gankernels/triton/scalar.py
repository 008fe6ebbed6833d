"""Launches of the losses of one logit over any number of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gankernels.reference import accumulation_dtype
from gankernels.triton.geometry import INT32_MAX, TILE_MARGIN, dense, in_order_of
from gankernels.triton.kernels.scalar import scale_terms_kernel, term_rows_kernel, term_sums_kernel
from gankernels.triton.launching import MEAN, NONE, launch, workspace
from gankernels.triton.plans import ELEMENTS, element_programs

# Terms of a launch; its loops over them are unrolled.
MOST_TERMS = 16
NUMBERS, PLACES = 5, 4


class Term:
    """One term's tensors as dense runs of memory in one order; a gradient may be lent."""

    def __init__(
        self,
        numbers: Sequence[float],
        tensors: Sequence[Tensor | None],
        gradients: Sequence[Tensor | None],
        output: int,
        losses: Sequence[Tensor],
        reduction: int,
        fold_mean: bool,
    ) -> None:
        logits, other, weight = tensors
        assert logits is not None
        self.output = output
        self.count = logits.numel()
        like = losses[output] if reduction == NONE else gradients[0]
        if like is None:
            like = dense(logits)
        self.logits = in_order_of(like, logits)
        self.lent: list[tuple[Tensor, Tensor]] = []
        self.other = None if other is None else in_order_of(like, other)
        self.weight, self.per_weight = self._weight(weight, gradients[2], like)
        self.gradients = [self._gradient(g, like) for g in gradients]
        self.numbers = (int(numbers[0]), *numbers[1:])
        present = (other, weight, *gradients)
        fold = fold_mean or logits.dtype != torch.float16
        self.flags = (*(x is not None for x in present), fold)

    def _gradient(self, asked: Tensor | None, like: Tensor) -> Tensor | None:
        if asked is None or asked.stride() == like.stride():
            return asked
        lent = torch.empty_like(like, dtype=asked.dtype)
        self.lent.append((lent, asked))
        return lent

    def _weight(
        self, weight: Tensor | None, gradient: Tensor | None, like: Tensor
    ) -> tuple[Tensor | None, int]:
        """One for each sample as it is, where samples lie one after the other; else one for each element."""
        if weight is None:
            return None, 1
        of_samples = all(
            n == 1 or s == 0 for n, s in zip(weight.shape[1:], weight.stride()[1:], strict=True)
        )
        if weight.ndim < 2 or not of_samples or gradient is not None or not like.is_contiguous():
            return in_order_of(like, weight), 1
        if not self.count:
            return like, 1
        samples = weight
        while samples.ndim > 1:
            samples = samples.select(-1, 0)
        return samples.contiguous(), self.count // weight.shape[0]

    def hand_back(self) -> None:
        for lent, asked in self.lent:
            asked.copy_(lent)


class Request(NamedTuple):
    """What is asked for of all terms alike."""

    scale: float
    reduction: int
    fold_mean: bool
    grad_scale: float


def terms(
    tensors: Sequence[Tensor],
    places: Sequence[int],
    numbers: Sequence[float],
    gradients: dict[int, Tensor],
    losses: Sequence[Tensor],
    request: Request,
) -> None:
    """The losses and the gradients that are asked for: a launch for every MOST_TERMS terms."""
    given = []
    for i in range(len(places) // PLACES):
        *at, output = places[PLACES * i : PLACES * (i + 1)]
        given.append(
            Term(
                numbers[NUMBERS * i : NUMBERS * (i + 1)],
                [None if a < 0 else tensors[a] for a in at],
                [gradients.get(a) for a in at],
                output,
                losses,
                request.reduction,
                request.fold_mean,
            )
        )
    run = _rows if request.reduction == NONE else _sums
    begun = -1
    for group in _launches(given, whole=request.reduction == NONE):
        run(group, losses, request, group[0].output == begun)
        begun = group[-1].output
    for term in given:
        term.hand_back()


def _launches(given: list[Term], whole: bool) -> Iterator[list[Term]]:
    """As many terms as a launch takes; those of an output in one, if they are to stay ``whole``."""
    while given:
        end = min(MOST_TERMS, len(given))
        while whole and end < len(given) and given[end].output == given[end - 1].output:
            end -= 1
        yield given[:end]
        given = given[end:]


def _arguments(group: list[Term], losses: Sequence[Tensor]) -> list[tuple[Any, ...]]:
    """The tuples that both kernels begin with."""
    first = group[0].output
    gradients = zip(*(term.gradients for term in group), strict=True)
    return [
        tuple(term.logits for term in group),
        tuple(term.logits if term.other is None else term.other for term in group),
        tuple(term.logits if term.weight is None else term.weight for term in group),
        *(
            tuple(term.logits if g is None else g for term, g in zip(group, of, strict=True))
            for of in gradients
        ),
        tuple(losses[first : group[-1].output + 1]),
    ]


def _constants(group: list[Term]) -> dict[str, Any]:
    wide = max(term.count for term in group) > INT32_MAX - TILE_MARGIN
    return {
        "TERMS": tuple(term.numbers for term in group),
        "FLAGS": tuple(term.flags for term in group),
        "OUTPUTS": tuple(term.output - group[0].output for term in group),
        "BLOCK": ELEMENTS,
        "WIDE": wide,
    }


def _firsts(programs: Sequence[int]) -> tuple[int, ...]:
    return tuple(accumulate(programs, initial=0))


def _sums(group: list[Term], losses: Sequence[Tensor], request: Request, continues: bool) -> None:
    loss = losses[0]
    single = len(group) <= 2 and max(term.count for term in group) <= ELEMENTS and not continues
    programs = [1] if single else [element_programs(term.count, loss.device) for term in group]
    partials, ticket = workspace(loss, sum(programs) if not single else 1)
    launch(
        term_sums_kernel,
        sum(programs),
        *_arguments(group, losses),
        partials,
        ticket,
        tuple(term.count for term in group),
        tuple(term.per_weight for term in group),
        _firsts(programs),
        request.scale,
        request.grad_scale,
        sum(programs),
        **_constants(group),
        MEAN=request.reduction == MEAN,
        SINGLE=single,
        CONTINUES=continues,
        num_warps=4,
    )


def _rows(group: list[Term], losses: Sequence[Tensor], request: Request, _: bool) -> None:
    programs = []
    for i, term in enumerate(group):
        begins = i == 0 or group[i - 1].output != term.output
        programs.append(-(-term.count // ELEMENTS) if begins else 0)
    if not sum(programs):
        return
    # Terms that follow in an output have no programs: what is theirs is the first one's.
    ends = list(_firsts(programs))
    launch(
        term_rows_kernel,
        sum(programs),
        *_arguments(group, losses),
        tuple(term.count for term in group),
        tuple(term.per_weight for term in group),
        tuple(ends),
        request.scale,
        request.grad_scale,
        **_constants(group),
        num_warps=4,
    )


def scale(
    gradients: Sequence[Tensor], grad_outputs: Sequence[Tensor], rows: Sequence[int]
) -> list[Tensor]:
    """gradient * grad_output, divided by its rows where these are positive."""
    outs = [torch.empty_like(g) for g in gradients]
    given = _given(gradients, grad_outputs, rows, outs)
    while given:
        _scale(given[:MOST_TERMS])
        given = given[MOST_TERMS:]
    return outs


def scale_in_place(
    gradients: Sequence[Tensor], grad_outputs: Sequence[Tensor], rows: Sequence[int]
) -> None:
    """The same in the gradients' own memory, dense, which is left alone where the factor is one."""
    given = _given(gradients, grad_outputs, rows, gradients)
    if len(given) > MOST_TERMS:
        # Should the second launch fail, the first one must not have changed anything.
        for gradient, scaled in zip(gradients, scale(gradients, grad_outputs, rows), strict=True):
            gradient.copy_(scaled)
    elif given:
        _scale(given, in_place=True)


class Scaled(NamedTuple):
    gradient: Tensor
    out: Tensor
    factor: Tensor
    by_element: bool
    rows: int


def _given(
    gradients: Sequence[Tensor],
    grad_outputs: Sequence[Tensor],
    rows: Sequence[int],
    outs: Sequence[Tensor],
) -> list[Scaled]:
    """Those that have elements."""
    each = zip(gradients, grad_outputs, rows, outs, strict=True)
    return [_scaled(*one) for one in each if one[0].numel()]


def _scaled(gradient: Tensor, grad_output: Tensor, rows: int, out: Tensor) -> Scaled:
    one = not any(n > 1 and s for n, s in zip(grad_output.shape, grad_output.stride(), strict=True))
    factor = grad_output.to(accumulation_dtype(gradient.dtype))
    if not one:
        factor = in_order_of(out, factor)
    return Scaled(in_order_of(out, gradient), out, factor, not one, rows)


def _scale(group: list[Scaled], in_place: bool = False) -> None:
    programs = [-(-g.out.numel() // ELEMENTS) for g in group]
    if in_place:  # programs that leave at once take their time, too
        programs = [element_programs(g.out.numel(), g.out.device) for g in group]
    launch(
        scale_terms_kernel,
        sum(programs),
        tuple(g.gradient for g in group),
        tuple(g.out for g in group),
        tuple(g.factor for g in group),
        tuple(g.out.numel() for g in group),
        tuple(g.rows for g in group),
        _firsts(programs),
        BY_ELEMENT=tuple(g.by_element for g in group),
        DIVIDE=tuple(g.rows > 0 for g in group),
        IN_PLACE=in_place,
        BLOCK=ELEMENTS,
        WIDE=max(g.out.numel() for g in group) > INT32_MAX - TILE_MARGIN,
        num_warps=4,
    )
