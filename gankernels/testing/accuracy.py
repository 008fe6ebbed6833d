"""How accurate a result must be, and how results are taken: what all comparisons share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gankernels._checks import FLOAT_DTYPES as DTYPES
from gankernels.reference import accumulation_dtype
from gankernels.testing.cases import Arguments
from gankernels.testing.operator import Operator
from gankernels.testing.table import OPERATORS


def tolerance(
    exact: Tensor,
    eager: Tensor,
    dtype: torch.dtype,
    accumulation: torch.dtype | None = None,
    magnitude: float | None = None,
    terms: int = 1,
) -> Tensor:
    """The largest error a result may have, element by element: the one rule of all comparisons.

    Twice the largest error of eager PyTorch in the same dtype, plus what rounding alone explains:
    ``eps |exact|``, as a result is rounded to its dtype at most twice, by half an ulp each (the
    kernel's store, the factor of the backward pass), and ``(4 + sqrt(terms) / 2) eps' magnitude``,
    as a result is a difference of sums of that magnitude, whose terms are rounded four times on
    their way (shift by the maximum, exponential or logarithm, product, difference) and whose
    partial sums wander from roundings of either sign, by half an ulp each, here and, where this is
    float64 too, in ``exact``.

    Args:
        exact: The result in float64.
        eager: The same by plain PyTorch in the dtype under test. Elements that are not finite do
            not count: an overflow there allows nothing here.
        dtype: The dtype of the result under test.
        accumulation: The dtype that it is computed in, whose eps is ``eps'``; by default that of
            ``dtype``.
        magnitude: The size of the sums that the result is a difference of; at least, and by
            default, the largest finite ``|exact|``.
        terms: How many terms the kernel sums.

    Returns:
        A float64 tensor of the shape of ``exact``.
    """
    exact, eager = exact.detach().double(), eager.detach().double()
    size = max(magnitude or 0.0, largest(exact))
    stored = torch.finfo(dtype)
    computed = torch.finfo(accumulation or accumulation_dtype(dtype))
    least = stored.smallest_normal * stored.eps  # the spacing of the subnormals
    rounding = max(stored.eps, computed.eps) * exact.abs() + least
    roundings = 4 + math.sqrt(terms) / 2
    return 2 * largest(eager - exact) + rounding + roundings * computed.eps * size


def largest(x: Tensor) -> float:
    """The largest finite magnitude in ``x``."""
    finite = x.detach().abs()[x.isfinite()]
    return float(finite.max()) if finite.numel() else 0.0


def assert_accurate(
    what: str,
    got: Tensor,
    exact: Tensor,
    eager: Tensor,
    dtype: torch.dtype,
    accumulation: torch.dtype | None = None,
    magnitude: float | None = None,
    terms: int = 1,
) -> None:
    """Raises AssertionError unless ``got`` is within :func:`tolerance` of ``exact``.

    It must have that dtype too, and its infinities and NaNs where ``exact`` has them in that dtype.
    """
    if got.dtype != dtype or got.shape != exact.shape:
        raise AssertionError(
            f"{what}: got {got.dtype} {list(got.shape)}, expected {dtype} {list(exact.shape)}"
        )
    rounded = exact.detach().to(dtype).double()  # to infinity beyond the largest number
    got, exact = got.detach().double(), exact.detach().double()
    allowed = tolerance(exact, eager, dtype, accumulation, magnitude, terms)
    same = (got == exact) | (got == rounded) | (got.isnan() & exact.isnan())
    close = exact.isfinite() & ((got - exact).abs() <= allowed)
    wrong = ~(same | close)
    if bool(wrong.any()):
        index = tuple(int(i) for i in wrong.nonzero()[0])
        raise AssertionError(
            f"{what}: got {float(got[index])!r}, expected {float(exact[index])!r} "
            f"within {float(allowed[index]):.3g} at index {list(index)} "
            f"({int(wrong.sum())} of {wrong.numel()} elements are wrong)"
        )


def in_dtype(arguments: Arguments, dtype: torch.dtype | None) -> Arguments:
    """The same call with every tensor in ``dtype``, where that is given."""
    if dtype is None:
        return arguments
    return {name: x.to(dtype) if isinstance(x, Tensor) else x for name, x in arguments.items()}


def cotangent(value: Tensor) -> Tensor:
    """A gradient for ``value``: 1 for a scalar, else numbers that are exact in every dtype."""
    if value.ndim == 0:
        return torch.ones_like(value)
    numbers = torch.arange(value.numel(), device=value.device) % 7 - 2.75
    return numbers.reshape(value.shape).to(value.dtype)


def differentiate(
    function: Callable[..., Tensor],
    arguments: Arguments,
    names: Sequence[str],
    grad_output: Tensor | None = None,
    writes: Sequence[str] = (),
) -> tuple[Tensor, dict[str, Tensor]]:
    """The value of ``function`` and its gradients to the arguments ``names``.

    Args:
        function: Called with ``arguments`` by name.
        arguments: Left alone: the differentiated ones are detached, with their strides.
        names: What to differentiate in.
        grad_output: The gradient of the value; by default :func:`cotangent` of it.
        writes: Arguments that ``function`` writes; it gets copies of them.
    """
    leaves = {name: arguments[name].detach().requires_grad_() for name in names}
    call = {**arguments, **leaves}
    call.update({name: call[name].clone() for name in writes})
    value = function(**call)
    grad_output = cotangent(value) if grad_output is None else grad_output.to(value)
    gradients = torch.autograd.grad(value, list(leaves.values()), grad_output)
    return value.detach(), dict(zip(leaves, gradients, strict=True))


def compare(
    operator: Operator,
    arguments: Arguments,
    names: Sequence[str],
    yardstick: torch.dtype | None = None,
) -> None:
    """Raises AssertionError unless value and gradients are accurate for these arguments.

    Args:
        operator: A row.
        arguments: A call of it.
        names: The arguments to differentiate in.
        yardstick: The dtype that eager PyTorch computes in to set the tolerance; by default that
            of each argument.
    """
    got, got_gradients = differentiate(
        operator.functional, arguments, names, writes=operator.writes
    )
    exact, exact_gradients = differentiate(
        operator.reference, in_dtype(arguments, torch.float64), names, writes=operator.writes
    )
    eager, eager_gradients = differentiate(
        operator.eager, in_dtype(arguments, yardstick), names, writes=operator.writes
    )
    dtype = arguments[operator.inputs(arguments)[0]].dtype
    accumulation = accumulation_dtype(dtype)
    terms = operator.classes(arguments)
    assert_accurate(
        f"{operator.name}: value",
        got,
        exact,
        eager,
        accumulation if operator.reductions else dtype,
        accumulation,
        value_magnitude(operator, arguments),
        _summed(operator, arguments),
    )
    for name in names:
        assert_accurate(
            f"{operator.name}: gradient to {name}",
            got_gradients[name],
            exact_gradients[name],
            eager_gradients[name],
            arguments[name].dtype,
            accumulation,
            gradient_magnitude(operator, arguments, name, cotangent(exact)),
            terms,
        )


def value_magnitude(operator: Operator, arguments: Arguments) -> float:
    """A row's loss is a difference of logits and of logarithms, of at most log K each; a sum adds one per row.

    Both are weighted by the target, whose own entropy has the logarithm of its mass in it.
    """
    rows = sum(operator.rows(arguments, arguments[name]) for name in operator.inputs(arguments))
    mass = _mass(operator, arguments)
    size = _logit_magnitude(operator, arguments) + math.log(max(operator.classes(arguments), 1))
    size = mass * (size + math.log(mass))
    return size * _factor(arguments) * (rows if arguments.get("reduction") == "sum" else 1)


def _summed(operator: Operator, arguments: Arguments) -> int:
    """How many terms a value is the sum of: a row's; those of all rows where no wider sum hides them.

    Rows can be alike, as those of one class are: their roundings then have one sign, and count in full.
    """
    logits = arguments[operator.inputs(arguments)[0]]
    reduced = arguments.get("reduction") in ("mean", "sum") and logits.dtype == torch.float64
    rows = max(operator.rows(arguments, arguments[name]) for name in operator.inputs(arguments))
    return operator.classes(arguments) * (rows**2 if reduced else 1)


def gradient_magnitude(
    operator: Operator, arguments: Arguments, name: str, grad_output: Tensor
) -> float:
    """A gradient is a difference of probabilities or, to a target, of logits, times its grad_output.

    Logits count for the former too where they are its factors, where a rounded mean is subtracted from
    them, and in float64, as ``exact`` is rounded like the result under test.
    """
    logits = [arguments[x] for x in operator.inputs(arguments)]
    rows = max(operator.rows(arguments, x) for x in logits)
    scale = largest(grad_output) * _factor(arguments) * _sharpness(arguments)
    if arguments.get("reduction") == "mean":
        scale /= max(rows, 1)  # an empty batch has none
    if name in operator.targets:
        scale *= rows
    of_logits = (*operator.targets, *operator.weighs)
    if name in of_logits or operator.couples_rows or logits[0].dtype == torch.float64:
        scale *= max(1.0, _logit_magnitude(operator, arguments))
    return scale


def _mass(operator: Operator, arguments: Arguments) -> float:
    """The most that a target's row sums to, at least one."""
    targets = [arguments[name] for name in operator.targets if arguments[name] is not None]
    sums = [x.detach().double().sum(arguments["dim"] if x.ndim > 1 else -1) for x in targets]
    return max([1.0, *map(largest, sums)])


def _factor(arguments: Arguments) -> float:
    """A loss's own factor; that of a layer is no number, and counts elsewhere."""
    scale = arguments.get("scale", 1.0)
    return 1.0 if isinstance(scale, Tensor) else abs(scale)


def _sharpness(arguments: Arguments) -> float:
    """The largest factor on logits and on gradients to them: one over the least temperature."""
    temperatures = [value for name, value in arguments.items() if name.endswith("temperature")]
    return 1 / min(temperatures, default=1.0)


def _logit_magnitude(operator: Operator, arguments: Arguments) -> float:
    size = max(largest(arguments[name]) for name in operator.inputs(arguments))
    size *= _sharpness(arguments)
    # A mixture's logits are those of its parts and the logarithms of their shares.
    share = arguments.get("beta", operator.constants.get("beta"))
    if share is not None:
        size -= math.log(min(share, 1 - share))
    # Logits drawn from statistics: mean + noise exp(log-variance / 2).
    return size * math.exp(size / 2) if operator.overflows else size


def check_operator(name: str, device: str = "cpu", dtypes: Sequence[torch.dtype] = DTYPES) -> None:
    """Runs every case of an operator on a device and compares it with float64.

    Args:
        name: An operator of :data:`OPERATORS`.
        device: Where to run it.
        dtypes: The dtypes of the inputs.

    Raises:
        ValueError: There is no such operator.
        AssertionError: A value or gradient is off by more than :func:`tolerance`.
    """
    rows = {operator.name: operator for operator in OPERATORS}
    if name not in rows:
        raise ValueError(f"name must be one of {sorted(rows)}, got {name!r}")
    operator = rows[name]
    for case in operator.cases():
        for dtype in dtypes:
            for reduction in operator.reductions_of(case):
                arguments = operator.draw(case, dtype, device, reduction)
                for names in operator.differentiations(arguments):
                    compare(operator, arguments, names)
