"""Calls of the losses of one logit per sample or patch: from what a user gives to terms of single tensors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gankernels import _checks as check
from gankernels._scalar import DISTANCES, SCALAR_LOSSES, OneLess, ScalarLoss, Side

Logits = Tensor | Sequence[Tensor]
"""A tensor of logits, or one of each discriminator."""

Weights = Tensor | Sequence[Tensor | None] | None
"""A weight or mask, one for every discriminator or one of each."""


class Means(NamedTuple):
    """How a relativistic loss takes its means, and whether it has terms of the fake logits alone."""

    detach: bool = False
    dim: int | None = None
    one_sided: bool = False


class Part(NamedTuple):
    """One tensor's share of a loss.

    Args:
        name: The argument that ``logits`` came as, as ``other_name`` is of ``other``.
        logits: The tensor.
        side: What the loss is of it.
        label: Its label, if not the default.
        other: The tensor whose logits are subtracted, or whose mean is.
        other_name: Its name.
        means: How that mean is taken, if it is.
        weight: A weight per element or per sample.
        mask: Which elements or samples count.
        output: The place of its value among the outputs.
    """

    name: str
    logits: Tensor
    side: Side
    label: float | OneLess | None = None
    other: Tensor | None = None
    other_name: str = ""
    means: Means | None = None
    weight: Tensor | None = None
    mask: Tensor | None = None
    output: int = 0


def changed(part: Part, **fields: Any) -> Part:
    """``part._replace(...)``, which Dynamo of torch 2.6 does not trace."""
    named: Any = {
        name: fields.get(name, value) for name, value in zip(Part._fields, part, strict=True)
    }
    return Part(**named)


class Options(NamedTuple):
    """What may be asked for of a loss beside its logits and reduction; a row's losses take what concerns them."""

    scale: float = 1.0
    real_label: float | OneLess | None = None
    fake_label: float | None = None
    real_weight: Weights = None
    fake_weight: Weights = None
    real_mask: Weights = None
    fake_mask: Weights = None
    average: bool = False
    per_output: bool = False
    return_terms: bool = False


def unweighted(options: Options) -> bool:
    """Whether every element counts alike."""
    weights = (options.real_weight, options.fake_weight, options.real_mask, options.fake_mask)
    return all(x is None for x in weights)


class Call(NamedTuple):
    """A call of a loss, its arguments sorted out."""

    real: Any
    fake: Any
    reduction: str
    options: Options
    means: Means


_MEANS = (("detach_means", False), ("mean_dim", None), ("one_sided", False))


def _options(name: str, loss: ScalarLoss) -> frozenset[str]:
    """What a row's public function takes beside logits and reduction."""
    of_generator = name.endswith("_g_loss")
    labels = [
        "label" if of_generator else label
        for label, side in (("real_label", loss.real), ("fake_label", loss.fake))
        if side is not None and side.label is not None
    ]
    if loss.relativistic:
        of_batches = [x for x, _ in _MEANS if of_generator or x != "one_sided"]
    elif loss.real and loss.fake:
        batches, kinds = ("real", "fake"), ("weight", "mask")
        of_batches = [f"{b}_{kind}" for b in batches for kind in kinds] + ["return_terms"]
    else:
        of_batches = ["weight", "mask"]
    return frozenset(["scale", "average", "per_output", *labels, *of_batches])


OPTIONS = {name: _options(name, loss) for name, loss in SCALAR_LOSSES.items()}
"""Of every row; ``logistic_d_loss`` has its ``label_smoothing`` besides, by position."""


def by_name(
    name: str, loss: ScalarLoss, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a call of ``name`` by name, refused as its public function refuses them."""
    positional = [*loss.arguments, "reduction"]
    if name == "logistic_d_loss":
        positional.append("label_smoothing")
    if len(args) > len(positional):
        raise TypeError(f"{name}() takes {len(positional)} positional arguments, got {len(args)}")
    by_position = dict(zip(positional[: len(args)], args, strict=True))
    unknown = [x for x in kwargs if x not in positional and x not in OPTIONS[name]]
    if unknown:
        raise TypeError(f"{name}() got an unexpected keyword argument {min(unknown)!r}")
    for argument in by_position:
        if argument in kwargs:
            raise TypeError(f"{name}() got multiple values for argument {argument!r}")
    named = {**by_position, **kwargs}
    for argument in loss.arguments:
        if argument not in named:
            raise TypeError(f"{name}() missing a required argument: {argument!r}")
    return named


def bound(name: str, loss: ScalarLoss, arguments: Mapping[str, Any]) -> Call:
    """The call of ``name`` with the arguments of its public function, without that function."""
    named = dict(arguments)
    logits = [named.pop(x) if x in loss.arguments else None for x in ("real_logits", "fake_logits")]
    reduction = named.pop("reduction", "mean")
    if name == "logistic_d_loss":
        labels = named.get("real_label", 1.0), named.get("fake_label", 0.0)
        smoothing = named.pop("label_smoothing", 0.0)
        check.check_targets(*labels, smoothing)
        if smoothing:
            named["real_label"] = OneLess(smoothing)
    means = Means()
    if loss.relativistic:
        means = Means(*(named.pop(x, d) for x, d in _MEANS))
    one = "real" if loss.real or loss.pair else "fake"
    if len(loss.arguments) == 1 or loss.pair:
        for option in ("weight", "mask", "label"):
            if option in named:
                if option == "label":
                    check.check_factor("label", named["label"])
                named[f"{one}_{option}"] = named.pop(option)
    for label, side in (("real_label", loss.real), ("fake_label", loss.fake)):
        given = named.get(label, 0.0)
        if side is not None and not isinstance(given, OneLess):
            (check.check_label if side.bounded else check.check_factor)(label, given)
    return Call(logits[0], logits[1], reduction, Options(**named), means)


def is_list(logits: object) -> bool:
    return isinstance(logits, (list, tuple))


def listed(name: str, given: Any) -> list[tuple[str, Tensor]]:
    """Every tensor of an argument, with what to call it in an error."""
    if not is_list(given):
        check.check_tensor(name, given)
        return [(name, given)]
    if not given:
        raise ValueError(f"{name} must be a tensor or a list of at least one, got an empty list")
    for i, logits in enumerate(given):
        if is_list(logits):
            raise TypeError(
                f"{name}[{i}] must be a Tensor, got a {type(logits).__name__}: of nested lists give the "
                f"entry that holds the logits, for instance [outputs[-1] for outputs in {name}]"
            )
        check.check_tensor(f"{name}[{i}]", logits)
    return [(f"{name}[{i}]", logits) for i, logits in enumerate(given)]


def _of_each(name: str, given: Any, count: int) -> list[tuple[str, Tensor | None]]:
    """A weight or mask for each of ``count`` discriminators."""
    if not is_list(given):
        return [(name, given)] * count
    if len(given) != count:
        raise ValueError(f"{name} must be a tensor or a list of {count}, got {len(given)}")
    return [(f"{name}[{i}]", x) for i, x in enumerate(given)]


def _check_weight(name: str, given: Any, logits_name: str, logits: Tensor, mask: bool) -> None:
    check.check_weight(name, given, mask=mask)
    check.check_same_device(name, given, logits_name, logits)
    samples = logits.shape[:1]
    if given.shape not in (logits.shape, samples):
        raise ValueError(
            f"{name} must have shape {list(samples)} or {list(logits.shape)} to match {logits_name}, "
            f"got {list(given.shape)}"
        )


def _batch(
    name: str,
    given: Any,
    side: Side,
    label: float | OneLess | None,
    weights: Sequence[tuple[str, Any]],
    outputs: Iterator[int],
) -> list[Part]:
    """The parts of the real or of the fake batch, one of each discriminator."""
    tensors = listed(name, given)
    weight, mask = (_of_each(*named, len(tensors)) for named in weights)
    parts = []
    for i, (logits_name, logits) in enumerate(tensors):
        check.check_floating(logits_name, logits)
        for (of, x), is_mask in ((weight[i], False), (mask[i], True)):
            if x is not None:
                _check_weight(of, x, logits_name, logits, is_mask)
        part = Part(logits_name, logits, side, label, weight=weight[i][1], mask=mask[i][1])
        parts.append(changed(part, output=next(outputs)))
    return parts


def check_lists(real: Any, fake: Any) -> None:
    """Both are tensors, or lists as long as each other."""
    counts = [len(x) if is_list(x) else "a tensor" for x in (real, fake)]
    if counts[0] != counts[1]:
        raise ValueError(
            "real_logits and fake_logits must be of the same discriminators, "
            f"got {counts[0]} and {counts[1]}"
        )


def check_outputs(call: Call) -> None:
    """What is asked for of the value."""
    check.check_reduction(call.reduction)
    if call.options.per_output and (call.reduction == "none" or call.options.return_terms):
        other = "return_terms" if call.options.return_terms else "reduction 'none'"
        raise ValueError(f"per_output must be False with {other}, got True")


def parts_of(loss: ScalarLoss, call: Call) -> list[Part]:
    """The parts of a call in the order of their outputs; checks all of its arguments."""
    real, fake, reduction, options, means = call
    check_outputs(call)
    if len(loss.arguments) == 2:
        check_lists(real, fake)
    # Each discriminator has an output of its own, or each side, or each side of each.
    of_each = 1 if options.per_output or reduction == "none" else 0
    sides = 2 if options.return_terms else 1
    two = loss.real is not None and loss.fake is not None
    of_real = (options.real_weight, options.real_mask)
    of_fake = (options.fake_weight, options.fake_mask)
    parts: list[Part] = []
    for name, side, label, given, weights, at in (
        ("real_logits", loss.pair, None, real, of_real, 0),
        ("real_logits", loss.real, options.real_label, real, of_real, 0),
        ("fake_logits", loss.fake, options.fake_label, fake, of_fake, (sides - 1) * two),
    ):
        if side is not None:
            prefix = name.removesuffix("logits") if two else ""
            named = [(f"{prefix}{n}", x) for n, x in zip(("weight", "mask"), weights, strict=True)]
            outputs = itertools.count(at, sides * of_each)
            parts += _batch(name, given, side, label, named, outputs)
    if loss.pair is not None:
        others = listed("fake_logits", fake)
        parts = [_paired(part, *other) for part, other in zip(parts, others, strict=True)]
    if loss.relativistic:
        parts = _against_means(parts, means)
    parts.sort(key=lambda part: part.output)
    _check_alike(parts, reduction)
    return parts


def _paired(part: Part, other_name: str, other: Tensor) -> Part:
    check.check_floating(other_name, other)
    check.check_same_device(part.name, part.logits, other_name, other)
    check.check_same_shape(part.name, part.logits, other_name, other)
    return changed(part, other=other, other_name=other_name)


def parts_of_maps(real: Any, fake: Any, norm: str) -> list[Part]:
    """Every feature map of generated images against the one of real images at its place."""
    if norm not in DISTANCES:
        raise ValueError(f"norm must be 'l1' or 'l2', got {norm!r}")
    parts = [
        Part(fake_name, b, DISTANCES[norm], other=a.detach(), other_name=real_name)
        for real_name, a, fake_name, b in _maps("real_features", real, "fake_features", fake)
    ]
    if not parts:
        raise ValueError("real_features must hold at least one feature map, got none")
    return parts


def _maps(
    real_name: str, real: Any, fake_name: str, fake: Any
) -> Iterator[tuple[str, Tensor, str, Tensor]]:
    if not (is_list(real) and is_list(fake)):
        check.check_floating(real_name, real)
        check.check_floating(fake_name, fake)
        check.check_same_device(real_name, real, fake_name, fake)
        check.check_same_shape(real_name, real, fake_name, fake)
        yield real_name, real, fake_name, fake
        return
    if len(real) != len(fake):
        raise ValueError(
            f"{real_name} and {fake_name} must have the same length, got {len(real)} and {len(fake)}"
        )
    for i, (a, b) in enumerate(zip(real, fake, strict=True)):
        yield from _maps(f"{real_name}[{i}]", a, f"{fake_name}[{i}]", b)


def _against_means(parts: list[Part], means: Means) -> list[Part]:
    """Of each real part and the fake one of the same discriminator: each less the mean of the other."""
    if means.dim not in (None, 0):
        raise ValueError(f"mean_dim must be None or 0, got {means.dim!r}")
    half = len(parts) // 2
    against = []
    for part, other in zip(parts, parts[half:] + parts[:half], strict=True):
        check.check_same_device(part.name, part.logits, other.name, other.logits)
        if means.dim == 0 and part.logits.shape[1:] != other.logits.shape[1:]:
            raise ValueError(
                f"{part.name} and {other.name} must have the same shape but for their number of samples "
                f"with mean_dim=0, got {list(part.logits.shape)} and {list(other.logits.shape)}"
            )
        against.append(changed(part, other=other.logits, other_name=other.name, means=means))
    return against[half:] if means.one_sided else against


def _check_alike(parts: list[Part], reduction: str) -> None:
    first = parts[0]
    for part in parts[1:]:
        check.check_same_device(first.name, first.logits, part.name, part.logits)
        if reduction == "none":
            beside = next(p for p in parts if p.output == part.output)
            check.check_same_shape(beside.name, beside.logits, part.name, part.logits)


def arranged(outputs: Sequence[Tensor], call: Call) -> Any:
    """What the caller gets of the outputs."""
    real, fake, reduction, options, _ = call
    many = is_list(real) or is_list(fake)
    if options.return_terms:
        if reduction == "none" and many:
            return list(outputs[::2]), list(outputs[1::2])
        return tuple(outputs)
    if reduction == "none":
        return list(outputs) if many else outputs[0]
    if options.per_output:
        losses = torch.stack(list(outputs))
        return losses.sum(), losses
    return outputs[0]


def scale_of(call: Call) -> float:
    """The factor on every term."""
    given = call.fake if call.real is None else call.real
    scale = check.check_factor("scale", call.options.scale)
    return scale / len(given) if call.options.average and is_list(given) else scale
