"""The losses of one logit per sample or patch, by the kernels or by the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gankernels import _backend, reference
from gankernels._checks import check_factor
from gankernels._rows import alike
from gankernels._scalar import FUNCTIONS, SCALAR_LOSSES, OneLess, Term, numbers_of, scaled
from gankernels._scalar_call import (
    Call,
    Means,
    Options,
    Part,
    arranged,
    check_outputs,
    parts_of,
    scale_of,
    unweighted,
)
from gankernels._scalar_prepared import prepared

_TERMS: dict[str, Term] = {
    name: tuple(
        number for side in (loss.pair, loss.real, loss.fake) if side for number in side.term
    )
    for name, loss in SCALAR_LOSSES.items()
}
"""The numbers of every row's terms, one after the other, where nothing else is asked for."""

_LABELS = {
    name: tuple(None if side is None else side.label for side in (loss.real, loss.fake))
    for name, loss in SCALAR_LOSSES.items()
}
"""And their labels."""

_USUAL = Means()

# Logits, other logits, weights (or none: -1) and output of each term.
_ONE, _TWO, _PAIR = (0, -1, -1, 0), (0, -1, -1, 0, 1, -1, -1, 0), (0, 1, -1, 0)


def terms_of(name: str, real_label: float | OneLess | None, fake_label: float | None) -> Term:
    """The numbers of a row's terms."""
    if (real_label, fake_label) == _LABELS[name] or real_label is fake_label is None:
        return _TERMS[name]
    if torch.compiler.is_compiling():
        return _labelled(name, real_label, fake_label)
    form = (name, real_label, fake_label)
    terms = _labelled_terms.get(form)
    if terms is None:
        if len(_labelled_terms) >= MOST_LABELS:
            _labelled_terms.clear()
        terms = _labelled_terms[form] = _labelled(*form)
    return terms


# Labels may be drawn anew at every step.
MOST_LABELS = 1024
_labelled_terms: dict[tuple[Any, ...], Term] = {}


def _labelled(name: str, real_label: float | OneLess | None, fake_label: float | None) -> Term:
    loss = SCALAR_LOSSES[name]
    sides = ((loss.pair, None), (loss.real, real_label), (loss.fake, fake_label))
    return tuple(n for side, t in sides if side for n in numbers_of(side, t))


def of_two(name: str, real: Any, fake: Any, reduction: str, *options: Any) -> Any:
    """A loss of real and fake logits, one term of each; ``options`` in the order of :class:`Options`."""
    scale, real_label, fake_label, weight, fake_weight, mask, fake_mask, _, each, apart = options
    plain = weight is fake_weight is mask is fake_mask is None and not (each or apart)
    if plain and not _backend.reference_serves(real, fake) and real.dtype == fake.dtype:
        if reduction == "none" and name in _LINEAR and real.shape == fake.shape:
            return _linear_of_two(name, real, fake, scale)
        terms = terms_of(name, real_label, fake_label)
        code = _backend.reduction_code(reduction)
        names = "real_logits,fake_logits"
        return _backend.scalar_loss(
            (real, fake), names, _TWO, terms, check_factor("scale", scale), code
        )[0]
    return of_any(name, Call(real, fake, reduction, Options(*options), _USUAL))


def _of_side(argument: str, label: Any) -> tuple[Any, Any]:
    return (label, None) if argument == "real_logits" else (None, label)


_LINEAR = {
    name: (loss.fake or loss.real).term[1]  # type: ignore[union-attr]
    for name, loss in SCALAR_LOSSES.items()
    if loss.pair is None and (loss.fake or loss.real).term[0] == FUNCTIONS.index("identity")  # type: ignore[union-attr]
}
"""The sign of the losses that are their logits, or those of their fake logits."""


def _linear(name: str, logits: Tensor, scale: float) -> Tensor:
    """The losses of elements, in one operation: nothing is there to fuse."""
    factor = _LINEAR[name] * check_factor("scale", scale)
    dtype = reference.accumulation_dtype(logits.dtype)
    if factor == 1:  # a copy's derivative costs nothing, that of a product a pass
        return logits.to(dtype, copy=True)
    return _times(logits if logits.dtype == dtype else logits.to(dtype), factor)


def _linear_of_two(name: str, real: Tensor, fake: Tensor, scale: float) -> Tensor:
    factor = _LINEAR[name] * check_factor("scale", scale)
    dtype = reference.accumulation_dtype(fake.dtype)
    difference = fake.to(dtype) - real.to(dtype)
    return difference if factor == 1 else _times(difference, factor)


def _times(x: Tensor, factor: float) -> Tensor:
    return -x if factor == -1 else x * factor


def of_one(name: str, argument: str, logits: Any, reduction: str, *options: Any) -> Any:
    """A loss of the real or of the fake logits alone: scale, label, weight, mask, average, per_output."""
    scale, label, weight, mask, average, each = options
    if weight is mask is None and not (each or _backend.reference_serves(logits)):
        if reduction == "none" and name in _LINEAR:
            return _linear(name, logits, scale)
        terms = _TERMS[name] if label is None else terms_of(name, *_of_side(argument, label))
        code = _backend.reduction_code(reduction)
        return _backend.scalar_loss(
            (logits,), argument, _ONE, terms, check_factor("scale", scale), code
        )[0]
    if argument == "real_logits":
        asked = Options(scale, label, None, weight, None, mask, None, average, each)
        return of_any(name, Call(logits, None, reduction, asked, _USUAL))
    asked = Options(scale, None, label, None, weight, None, mask, average, each)
    return of_any(name, Call(None, logits, reduction, asked, _USUAL))


def of_pairs(name: str, real: Any, fake: Any, reduction: str, *options: Any) -> Any:
    """A loss of each real logit less the fake one at its place: scale, weight, mask, average, per_output."""
    scale, weight, mask, average, each = options
    plain = weight is mask is None and not each
    if plain and not _backend.reference_serves(real, fake) and real.dtype == fake.dtype:
        code = _backend.reduction_code(reduction)
        names = "real_logits,fake_logits"
        return _backend.scalar_loss(
            (real, fake), names, _PAIR, _TERMS[name], check_factor("scale", scale), code
        )[0]
    asked = Options(scale, None, None, weight, None, mask, None, average, each)
    return of_any(name, Call(real, fake, reduction, asked, _USUAL))


def of_any(name: str, call: Call) -> Any:
    """Lists, weights, masks, several outputs, several dtypes."""
    options = call.options
    if unweighted(options):
        outputs = _of_lists(name, call)
        if outputs is not None:
            return arranged(outputs, call)
    return of_parts(name, call)


# --- lists of plain tensors -----------------------------------------------------------------------


class _Plan(NamedTuple):
    """How the operator takes as many tensors: of all discriminators one after the other, or of each side."""

    by_side: bool
    names: str
    places: tuple[int, ...]


_plans: dict[tuple[Any, ...], _Plan] = {}


def _of_lists(name: str, call: Call) -> Sequence[Tensor] | None:
    """Without the checks that lists of tensors of one dtype on one device need not; None for others."""
    loss, options = SCALAR_LOSSES[name], call.options
    lists = [x for x in (call.real, call.fake) if x is not None]
    if not all(type(x) in (list, tuple) and x for x in lists) or len(lists[0]) != len(lists[-1]):
        return None
    tensors = [x for given in zip(*lists, strict=True) for x in given]
    if _backend.reference_serves(*tensors):
        return None
    dtype, device = tensors[0].dtype, tensors[0].device
    if not all(x.dtype == dtype and x.device == device for x in tensors):
        return None
    check_outputs(call)
    apart = call.reduction == "none" or options.per_output
    form = (loss.arguments, loss.pair is not None, len(lists[0]), apart, options.return_terms)
    plan = _plans.get(form)
    if plan is None:
        plan = _plans[form] = _planned(*form)
    terms = terms_of(name, options.real_label, options.fake_label)
    if plan.by_side:
        tensors = [x for given in lists for x in given]
        terms = terms[:5] * len(lists[0]) + terms[5:] * len(lists[0])
    else:
        terms = terms * len(lists[0])
    code = _backend.reduction_code(call.reduction)
    scale = scale_of(call)
    return list(_backend.scalar_loss(tensors, plan.names, plan.places, terms, scale, code))


def _planned(
    arguments: tuple[str, ...], pair: bool, count: int, apart: bool, return_terms: bool
) -> _Plan:
    by_side = return_terms and not apart
    order = [(a, i) for i in range(count) for a in arguments]
    if by_side:
        order = [(a, i) for a in arguments for i in range(count)]
    names = ",".join(f"{a}[{i}]" for a, i in order)
    if pair:
        return _Plan(
            False, names, tuple(n for i in range(count) for n in (2 * i, 2 * i + 1, -1, i * apart))
        )
    places: list[int] = []
    for at, (argument, i) in enumerate(order):
        side = arguments.index(argument) if return_terms else 0
        output = i * apart * (2 if return_terms else 1) + side
        places += [at, -1, -1, output]
    return _Plan(by_side, names, tuple(places))


# --- any ------------------------------------------------------------------------------------------


def of_parts(name: str, call: Call) -> Any:
    """Any of them: lists, weights, masks, several outputs, several dtypes."""
    parts = prepared(parts_of(SCALAR_LOSSES[name], call), call.reduction)
    return arranged(of_prepared(parts, call.reduction, scale_of(call)), call)


def of_prepared(parts: Sequence[Part], reduction: str, scale: float) -> list[Tensor]:
    """The outputs of parts as kernels take them."""
    tensors = [x for p in parts for x in (p.logits, p.other, p.weight) if x is not None]
    if _backend.reference_serves(*tensors):
        return reference.scalar_terms(parts, reduction, scale)
    code = _backend.reduction_code(reduction)
    return list(_backend.scalar_loss(*_as_operator_takes(parts), scale, code))


def _as_operator_takes(
    parts: Sequence[Part],
) -> tuple[list[Tensor], str, list[int], list[float]]:
    tensors: list[Tensor] = []
    names: list[str] = []
    places: list[int] = []
    terms: list[float] = []

    def place(tensor: Tensor | None, name: str) -> int:
        if tensor is None:
            return -1
        tensors.append(tensor)
        names.append(name)
        return len(tensors) - 1

    for part in parts:
        places += [
            place(part.logits, part.name),
            place(part.other, part.other_name),
            place(part.weight, f"the weight of {part.name}"),
            part.output,
        ]
        terms += numbers_of(part.side, part.label)
    return tensors, ",".join(names), places, terms


# --- against the other batch's mean ---------------------------------------------------------------


def relativistic(
    name: str, real: Any, fake: Any, reduction: str, options: Options, means: Means
) -> Any:
    """A relativistic average loss: an operator of its own, unless its means are taken in another way."""
    usual = means == _USUAL
    plain = usual and not (options.per_output or _backend.reference_serves(real, fake))
    if plain and real.dtype == fake.dtype:
        code = _backend.reduction_code(reduction)
        return _backend.relativistic_loss(
            real, fake, *terms_against_means(name, options.scale), code
        )
    call = Call(real, fake, reduction, options, means)
    parts, scale = parts_of(SCALAR_LOSSES[name], call), scale_of(call)
    given = [part.logits for part in parts]
    if not usual or _backend.reference_serves(*given):
        outputs = of_prepared(prepared(parts, reduction), reduction, scale)
    else:
        outputs = _by_own_operator(parts, reduction, terms_against_means(name, scale))
    return arranged(outputs, call)


def terms_against_means(name: str, scale: float) -> tuple[Term, Term]:
    """The terms of a relativistic loss, whose operator knows no factor."""
    terms = _TERMS[name]
    factor = check_factor("scale", scale)
    return scaled(terms[:5], factor), scaled(terms[5:], factor)


def _by_own_operator(
    parts: Sequence[Part], reduction: str, terms: tuple[Term, Term]
) -> list[Tensor]:
    """One call for each discriminator: of its real part, which knows the fake logits it is against."""
    outputs: dict[int, Tensor] = {}
    code = _backend.reduction_code(reduction)
    for part in parts:
        if not part.name.startswith("real"):
            continue
        assert part.other is not None
        loss = _backend.relativistic_loss(*alike(part.logits, part.other), *terms, code)
        before = outputs.get(part.output)
        outputs[part.output] = loss if before is None else before + loss
    return [outputs[i] for i in range(len(outputs))]


# --- value and gradients at once ------------------------------------------------------------------


def value_and_grad(
    name: str, call: Call, wanted: Sequence[bool], grad_scale: float
) -> tuple[Tensor, tuple[Tensor | None, ...]] | None:
    """Of a call of plain tensors, with one gradient for each logits argument; None for any other."""
    real, fake, reduction, options, means = call
    logits = tuple(x for x in (real, fake) if x is not None)
    if means != _USUAL or not unweighted(options) or options.per_output or options.return_terms:
        return None
    if _backend.reference_serves(*logits):
        return None
    terms = terms_of(name, options.real_label, options.fake_label)
    return plain_value_and_grad(name, logits, reduction, wanted, grad_scale, terms, options.scale)


def plain_value_and_grad(
    name: str,
    logits: tuple[Tensor, ...],
    reduction: str,
    wanted: Sequence[bool],
    grad_scale: float,
    terms: Term | None = None,
    scale: float = 1.0,
) -> tuple[Tensor, tuple[Tensor | None, ...]] | None:
    """Of tensors that kernels serve; None where their dtypes differ."""
    if logits[0].dtype != logits[-1].dtype:
        return None
    loss, code = SCALAR_LOSSES[name], _backend.reduction_code(reduction)
    if loss.relativistic:
        both = terms_against_means(name, scale)
        arguments = (*logits, *both, code, *wanted, True, grad_scale)
        value, to_real, to_fake = _backend.VALUE_AND_GRAD["relativistic_loss"](*arguments)
        return value, (to_real if wanted[0] else None, to_fake if wanted[1] else None)
    names, places = _PLAIN[len(logits) + (loss.pair is not None)]
    values, gradients = _backend.scalar_value_and_grad(
        logits,
        names if len(logits) == 2 else loss.arguments[0],
        places,
        _TERMS[name] if terms is None else terms,
        check_factor("scale", scale),
        code,
        _wanted_of[tuple(wanted)],
        True,
        grad_scale,
    )
    if len(gradients) == len(logits):
        return values[0], tuple(gradients)
    found = iter(gradients)
    return values[0], tuple(next(found) if want else None for want in wanted)


# Names and places of one tensor, of two, and of a pair.
_PLAIN = {
    1: ("", _ONE),
    2: ("real_logits,fake_logits", _TWO),
    3: ("real_logits,fake_logits", _PAIR),
}
_wanted_of = {
    (True,): (0,),
    (False,): (),
    (True, True): (0, 1),
    (True, False): (0,),
    (False, True): (1,),
    (False, False): (),
}
