"""One row per operator, and the one tolerance: what every generic test is made from.

:data:`OPERATORS` holds the rows. A row says how to draw arguments for an operator, what it is
differentiable in, and how a user would write it in plain PyTorch; ``tests/contract`` runs the whole
contract on every row, and ``tests/test_registration.py`` fails for an operator without one.
:func:`check_operator` runs the numerical part on any device.

Example:
    >>> from gankernels.testing import check_operator
    >>> check_operator("softmax_kl")  # every shape, dtype and reduction against float64
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gankernels import functional
from gankernels import reference as reference_operators
from gankernels._accuracy import (
    Arguments,
    assert_accurate,
    cotangent,
    differentiate,
    in_dtype,
    largest,
    tolerance,
)
from gankernels._backend import REDUCTIONS as REDUCTION_CODES
from gankernels._checks import FLOAT_DTYPES as DTYPES
from gankernels._checks import REDUCTIONS
from gankernels._counters import gradient_scale_counts
from gankernels._scalar import SCALAR_LOSSES, ScalarLoss
from gankernels.reference import accumulation_dtype

__all__ = [
    "DTYPES",
    "OPERATORS",
    "REDUCTIONS",
    "Arguments",
    "Case",
    "Draw",
    "Operator",
    "assert_accurate",
    "check_operator",
    "compare",
    "cotangent",
    "differentiate",
    "gradient_scale_counts",
    "in_dtype",
    "tolerance",
]

# --- what a call looks like ----------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A call, apart from its dtype, device and reduction. A row ignores what does not concern it.

    Args:
        shape: The shape of the logits (of the layer's input).
        dim: The class dimension.
        second_batch: Size of dim 0 of the second batch, where it differs.
        target: ``"shared"``: one distribution ``(K,)``; ``"kept"``: the same as ``(1, K, 1, ...)``;
            ``"rows"``: one per row.
        empty_bins: Whether about half of a target's bins are exactly zero.
        mass: The sum of a target; where an operator takes two, the second sums to its inverse.
        target_dtype: The target's dtype, if it is not that of the logits.
        options: Further keyword arguments, such as ``objective``.
    """

    shape: tuple[int, ...] = (6, 5)
    dim: int = 1
    second_batch: int | None = None
    target: str = "shared"
    empty_bins: bool = False
    mass: float = 1.0
    target_dtype: torch.dtype | None = None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def label(self) -> str:
        """Unique among a row's cases, and fit for ``pytest -k``."""
        parts = [f"{name}={value}" for name, value in self.options.items()]
        parts.append("x".join(map(str, self.shape)))
        plain = Case()
        if self.dim != plain.dim:
            parts.append(f"dim={self.dim}")
        if self.second_batch is not None:
            parts.append(f"second={self.second_batch}")
        if self.target != plain.target:
            parts.append(self.target)
        if self.empty_bins:
            parts.append("empty_bins")
        if self.mass != plain.mass:
            parts.append(f"mass={self.mass}")
        if self.target_dtype is not None:
            parts.append(str(self.target_dtype).removeprefix("torch."))
        return ",".join(parts)


class Draw:
    """A seeded source of tensors; the same numbers on every device, rounded to ``dtype``."""

    def __init__(
        self, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0
    ) -> None:
        self.dtype = dtype
        self.device = device
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 3.0) -> Tensor:
        x = torch.randn(shape, dtype=torch.float64, generator=self.generator)
        return (scale * x).to(self.dtype).to(self.device)

    def distribution(self, case: Case, shape: tuple[int, ...], mass: float) -> Tensor:
        """A target for logits of ``shape``, as ``case`` wants it."""
        dim = case.dim % len(shape)
        if case.target == "rows":
            wanted = shape
        else:
            wanted = tuple(size if d == dim else 1 for d, size in enumerate(shape))
        weights = torch.randn(wanted, dtype=torch.float64, generator=self.generator).exp()
        if case.empty_bins:
            keep = torch.rand(wanted, dtype=torch.float64, generator=self.generator) < 0.5
            weights = weights * (keep | (weights == weights.amax(dim, keepdim=True)))
        target = mass * weights / weights.sum(dim, keepdim=True)
        if case.target == "shared":
            target = target.flatten()
        return target.to(case.target_dtype or self.dtype).to(self.device)


SHAPES = (
    Case((6, 5)),
    Case((4,), dim=0),
    Case((1, 7)),
    Case((5, 1)),
    Case((3, 17)),
    Case((3, 51)),
    Case((3, 64)),
    Case((2, 1025)),
    Case((33, 20)),
    Case((900, 20)),  # more than one unit of parallel work
    Case((17, 6), dim=0),
    Case((2, 5, 3)),
    Case((2, 3, 5), dim=-1),
    Case((3, 2, 5, 2), dim=2),
    Case((2, 20, 5, 4)),
)
"""For operators with a class dimension."""

TARGETS = tuple(
    replace(case, shape=shape)
    for shape in [(6, 20), (2, 6, 3)]
    for case in [
        Case(target="kept"),
        Case(target="rows"),
        Case(empty_bins=True),
        Case(target="rows", empty_bins=True),
        Case(mass=1.7),
        Case(target="kept", mass=0.4),
        Case(target="rows", mass=1.7, empty_bins=True),
        Case(target_dtype=torch.float16),
        Case(target_dtype=torch.float64, empty_bins=True),
        Case(target="rows", target_dtype=torch.float32, mass=0.4),
        Case(target="rows", target_dtype=torch.bfloat16),
    ]
)
"""The same for operators with targets."""

STATISTICS = (
    Case((6, 5)),
    Case((5, 1)),
    Case((33, 20), empty_bins=True),
    Case((900, 20), mass=1.7),
    Case((17, 6), dim=0),
    Case((2, 6, 3), target="rows", empty_bins=True),
    Case((2, 20, 5, 4), target="kept", target_dtype=torch.float64),
)
"""For operators on means and log-variances: what is not theirs is tested where it belongs."""

UNEVEN = (
    Case((6, 5), second_batch=9),
    Case((9, 20), second_batch=1),
    Case((2, 5, 3), second_batch=4, target="rows", mass=1.7),
)
"""The same for operators whose two batches may differ in size."""


PLAIN_SHAPES = (
    Case((7,)),
    Case(()),
    Case((1,)),
    Case((5, 1)),
    Case((33, 20)),
    Case((2, 1, 3, 4)),
    Case((20000,)),  # more than one unit of parallel work
)
"""For operators on tensors of any shape."""

SAMPLE_SHAPES = tuple(case for case in PLAIN_SHAPES if case.shape)
"""For operators with one entry per sample."""


# --- the rows ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operator:
    """One row: everything that the generic tests know about an operator.

    Args:
        name: Its name in ``gankernels.functional`` and ``gankernels.reference``.
        arguments: Draws the arguments of a case, all but ``reduction``.
        eager: The formula as users write it in plain PyTorch, computed in the dtype of its inputs;
            same arguments. Its error is the yardstick of :func:`tolerance`.
        logits: The arguments of which ``value_and_grad`` returns the gradients, in its order. For
            a layer, the inputs that it is differentiable in.
        targets: Further arguments that it is differentiable in; drawn positive, or zero.
        shapes: The cases of shape; those of targets and of uneven batches are added.
        options: Settings to run every case with.
        has_classes: Whether its logits are those of a softmax over a dimension ``dim``.
        uneven_batches: Whether its two batches may differ in size.
        reductions: What ``reduction`` may be; empty where there is no such argument.
        public: The differentiable operator in ``torch.ops.gankernels``, if not ``name``.
        fused: The one that returns value and gradients, if not ``{public}_value_and_grad``; empty
            where there is none.
        helpers: Other compiled operators behind it, shared or not.
        constants: Arguments that only the compiled operators take.
        overflows: Whether large inputs overflow by nature, as an exponential of them is a factor.
        couples_rows: Whether the loss of a row depends on the other rows.
        true_derivative: Whether its backward is the derivative of its forward.
        writes: Arguments that it writes, by contract.
    """

    name: str
    arguments: Callable[[Case, Draw], Arguments]
    eager: Callable[..., Tensor]
    logits: tuple[str, ...]
    targets: tuple[str, ...] = ()
    shapes: tuple[Case, ...] = SHAPES
    options: tuple[Mapping[str, Any], ...] = ({},)
    has_classes: bool = True
    uneven_batches: bool = False
    reductions: tuple[str, ...] = REDUCTIONS
    public: str | None = None
    fused: str | None = None
    helpers: tuple[str, ...] = ("scale_gradient", "scale_gradients")
    constants: Mapping[str, Any] = field(default_factory=dict)
    overflows: bool = False
    couples_rows: bool = False
    true_derivative: bool = True
    writes: tuple[str, ...] = ()

    @property
    def functional(self) -> Callable[..., Tensor]:
        """The public function."""
        return getattr(functional, self.name)  # type: ignore[no-any-return]

    @property
    def reference(self) -> Callable[..., Tensor]:
        """Its specification in plain PyTorch."""
        return getattr(reference_operators, self.name)  # type: ignore[no-any-return]

    @property
    def public_operator(self) -> str:
        """The differentiable operator in ``torch.ops.gankernels``."""
        return self.public or self.name

    @property
    def fused_operator(self) -> str:
        """The operator that returns value and gradients; empty where there is none."""
        return f"{self.public_operator}_value_and_grad" if self.fused is None else self.fused

    @property
    def compiled(self) -> tuple[str, ...]:
        """Every name in ``torch.ops.gankernels`` that this row answers for."""
        names = (self.public_operator, self.fused_operator, *self.helpers)
        return tuple(name for name in names if name)

    def compiled_arguments(self, operator: Any, arguments: Arguments) -> tuple[Any, ...]:
        """A call's arguments as one of :attr:`compiled` takes them, in its order.

        Args:
            operator: The overload, such as ``torch.ops.gankernels.softmax_kl.default``.
            arguments: The call. Every gradient is asked for, of a target where it has one per row.
        """
        logits = self.inputs(arguments)
        shape = arguments[logits[0]].shape
        per_row = [
            n for n in self.targets if arguments[n] is not None and arguments[n].shape == shape
        ]
        suffixes = re.compile("_(logits|statistics)$")
        flags = {f"{suffixes.sub('', name)}_grad" for name in (*logits, *per_row)}
        values = {**self.constants, **arguments, "fold_mean": True, "grad_scale": 1.0}
        if self.reductions:
            values["reduction"] = REDUCTION_CODES[arguments.get("reduction", "mean")]
        if arguments.get("label_smoothing"):
            smoothed = SCALAR_LOSSES[self.name].smoothed(arguments["label_smoothing"])
            values["real_term"] = smoothed.real
        schema = operator._schema.arguments
        for argument in schema:
            values.setdefault(argument.name, argument.default_value)
            if str(argument.type) == "bool" and argument.name not in self.constants:
                values[argument.name] = argument.name == "fold_mean" or argument.name in flags
        return tuple(values[argument.name] for argument in schema)

    def cases(self) -> Iterator[Case]:
        """Every case of the row."""
        for options in self.options:
            for case in self.shapes:
                yield replace(case, options=options)
            for case in TARGETS if self.targets else ():
                yield replace(case, options=options)
            for case in UNEVEN if self.uneven_batches else ():
                yield replace(case, options=options)

    def few_cases(self, shape: tuple[int, ...] = (3, 4)) -> Iterator[Case]:
        """One small case per setting and kind of target, for tests that cost more than a call."""
        kinds: list[Case] = [Case()]
        if self.targets:
            kinds = [Case(empty_bins=True, mass=1.5), Case(target="rows")]
        for options in self.options:
            for case in kinds:
                yield replace(case, shape=shape, options=options)

    def draw(
        self,
        case: Case,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        reduction: str | None = None,
        seed: int = 0,
    ) -> Arguments:
        """The arguments of a case, ready for ``functional(**arguments)``."""
        arguments = self.arguments(case, Draw(dtype, device, seed))
        arguments.update(case.options)
        if reduction is not None:
            arguments["reduction"] = reduction
        return arguments

    def reductions_of(self, case: Case) -> tuple[str | None, ...]:
        """The reductions that a case can be run with; ``(None,)`` where there is no choice."""
        if not self.reductions:
            return (None,)
        # Losses of batches of different size cannot be added row by row.
        return tuple(r for r in self.reductions if r != "none" or case.second_batch is None)

    def inputs(self, arguments: Arguments) -> tuple[str, ...]:
        """The names of the logits that are present in a call."""
        return tuple(name for name in self.logits if arguments[name] is not None)

    def differentiations(self, arguments: Arguments) -> tuple[tuple[str, ...], ...]:
        """What to differentiate a call in: its logits, and these together with its targets."""
        logits = self.inputs(arguments)
        targets = tuple(name for name in self.targets if arguments[name] is not None)
        return (logits, logits + targets) if targets else (logits,)

    def classes(self, arguments: Arguments) -> int:
        """The size of the dimension ``dim``, 1 where there is none."""
        logits = arguments[self.inputs(arguments)[0]]
        return int(logits.shape[arguments["dim"]]) if "dim" in arguments else 1

    def rows(self, arguments: Arguments, logits: Tensor) -> int:
        """How many rows, each with its own loss, a tensor of logits has."""
        return logits.numel() // self.classes(arguments)


def _align(target: Tensor, logits: Tensor, dim: int) -> Tensor:
    if target.ndim == logits.ndim:
        return target
    return target.reshape([-1 if d == dim % logits.ndim else 1 for d in range(logits.ndim)])


def _reduce(rows: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return rows
    return rows.mean() if reduction == "mean" else rows.sum()


def _eager_kl_rows(logits: Tensor, target: Tensor, dim: int) -> Tensor:
    target = _align(target, logits, dim)
    return (torch.xlogy(target, target) - target * F.log_softmax(logits, dim)).sum(dim)


def _eager_kl_logits_rows(p_logits: Tensor, q_logits: Tensor, dim: int) -> Tensor:
    log_p, log_q = F.log_softmax(p_logits, dim), F.log_softmax(q_logits, dim)
    return (log_p.exp() * (log_p - log_q)).sum(dim)


def _softmax_kl_arguments(case: Case, draw: Draw) -> Arguments:
    logits = draw.normal(*case.shape)
    target = draw.distribution(case, case.shape, case.mass)
    return {"logits": logits, "target": target, "dim": case.dim}


def _softmax_kl(logits: Tensor, target: Tensor, dim: int = 1, reduction: str = "mean") -> Tensor:
    return _reduce(_eager_kl_rows(logits, target, dim), reduction)


def _softmax_kl_logits_arguments(case: Case, draw: Draw) -> Arguments:
    p_logits, q_logits = draw.normal(*case.shape), draw.normal(*case.shape)
    return {"p_logits": p_logits, "q_logits": q_logits, "dim": case.dim}


def _softmax_kl_logits(
    p_logits: Tensor, q_logits: Tensor, dim: int = 1, reduction: str = "mean"
) -> Tensor:
    return _reduce(_eager_kl_logits_rows(p_logits, q_logits, dim), reduction)


def _realness_d_arguments(case: Case, draw: Draw) -> Arguments:
    fake_shape = case.shape
    if case.second_batch is not None:
        fake_shape = (case.second_batch, *case.shape[1:])
    return {
        "real_logits": draw.normal(*case.shape),
        "fake_logits": draw.normal(*fake_shape),
        "real_anchor": draw.distribution(case, case.shape, case.mass),
        "fake_anchor": draw.distribution(case, fake_shape, 1 / case.mass),
        "dim": case.dim,
    }


def _realness_d_loss(
    real_logits: Tensor,
    fake_logits: Tensor,
    real_anchor: Tensor,
    fake_anchor: Tensor,
    dim: int = 1,
    reduction: str = "mean",
) -> Tensor:
    real = _eager_kl_rows(real_logits, real_anchor, dim)
    fake = _eager_kl_rows(fake_logits, fake_anchor, dim)
    return _reduce(real, reduction) + _reduce(fake, reduction)


def _realness_g_arguments(case: Case, draw: Draw) -> Arguments:
    arguments = _realness_d_arguments(case, draw)
    # What an objective does not use may be missing.
    if case.options["objective"] != 2:
        arguments["real_logits"] = None
    if case.options["objective"] != 3:
        arguments["real_anchor"] = None
    return arguments


def _realness_g_loss(
    real_logits: Tensor | None,
    fake_logits: Tensor,
    real_anchor: Tensor | None,
    fake_anchor: Tensor,
    objective: int = 2,
    dim: int = 1,
    reduction: str = "mean",
) -> Tensor:
    rows = -_eager_kl_rows(fake_logits, fake_anchor, dim)
    if objective == 2:
        assert real_logits is not None
        rows = _eager_kl_logits_rows(real_logits, fake_logits, dim) + rows
    if objective == 3:
        assert real_anchor is not None
        rows = _eager_kl_rows(fake_logits, real_anchor, dim) + rows
    return _reduce(rows, reduction)


def _two_batches(case: Case, draw: Draw) -> Arguments:
    sizes = case.shape if case.second_batch is None else (case.second_batch, *case.shape[1:])
    return {"real_logits": draw.normal(*case.shape), "fake_logits": draw.normal(*sizes)}


def _one_batch(case: Case, draw: Draw) -> Arguments:
    return {"fake_logits": draw.normal(*case.shape)}


def _formulas(loss: ScalarLoss) -> Callable[..., Tensor]:
    """A row's formulas, in the dtype of the logits."""

    def eager(
        fake_logits: Tensor,
        real_logits: Tensor | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> Tensor:
        rows = loss.rows(real_logits, fake_logits, label_smoothing)
        return reference_operators.add_up(rows, reduction)

    return eager


def _scalar_loss(name: str, loss: ScalarLoss) -> Operator:
    """The row of a loss with one logit per row: one compiled operator serves them all."""
    terms = {"real_term": loss.real, "fake_term": loss.fake, "relativistic": loss.relativistic}
    smoothing = ({"label_smoothing": 0.1},) if name == "logistic_d_loss" else ()
    return Operator(
        name=name,
        arguments=_two_batches if loss.real else _one_batch,
        eager=_formulas(loss),
        logits=("real_logits", "fake_logits") if loss.real else ("fake_logits",),
        shapes=PLAIN_SHAPES,
        options=({}, *smoothing),
        has_classes=False,
        uneven_batches=bool(loss.real),
        public="scalar_loss",
        constants=terms if loss.real else {**terms, "real_logits": None},
        couples_rows=loss.relativistic,
    )


class _Scaled(torch.autograd.Function):
    """The layer as the field writes it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float | Tensor) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0] * ctx.scale, None


def _gradient_scale_arguments(case: Case, draw: Draw) -> Arguments:
    return {"x": draw.normal(*case.shape), "scale": draw.normal(case.shape[0], scale=1.0)}


def _gradient_scale(x: Tensor, scale: Tensor) -> Tensor:
    return _Scaled.apply(x, scale.reshape([-1] + [1] * (x.ndim - 1)))  # type: ignore[no-any-return, no-untyped-call]


def _resample_arguments(case: Case, draw: Draw) -> Arguments:
    dim = case.dim % len(case.shape)
    doubled = [2 * size if d == dim else size for d, size in enumerate(case.shape)]
    statistics = draw.normal(*doubled, scale=1.0)
    return {"mu_logvar": statistics, "dim": case.dim, "noise": draw.normal(*case.shape, scale=1.0)}


def _resample_logits(mu_logvar: Tensor, noise: Tensor, dim: int = 1) -> Tensor:
    mean, log_variance = mu_logvar.chunk(2, dim)
    return mean + noise * (log_variance / 2).exp()


def _resampled_realness_d_arguments(case: Case, draw: Draw) -> Arguments:
    shapes = {"real": case.shape, "fake": case.shape}
    if case.second_batch is not None:
        shapes["fake"] = (case.second_batch, *case.shape[1:])
    arguments: Arguments = {"dim": case.dim}
    for batch, shape in shapes.items():
        drawn = _resample_arguments(replace(case, shape=shape), draw)
        mass = case.mass if batch == "real" else 1 / case.mass
        arguments[f"{batch}_statistics"] = drawn["mu_logvar"]
        arguments[f"{batch}_anchor"] = draw.distribution(case, shape, mass)
        arguments[f"{batch}_noise"] = drawn["noise"]
    return arguments


def _resampled_realness_g_arguments(case: Case, draw: Draw) -> Arguments:
    arguments = _resampled_realness_d_arguments(case, draw)
    if case.options["objective"] != 2:
        arguments["real_statistics"] = arguments["real_noise"] = None
    if case.options["objective"] != 3:
        arguments["real_anchor"] = None
    return arguments


def _resampled(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The loss of logits drawn first."""

    def eager(
        real_statistics: Tensor | None,
        fake_statistics: Tensor,
        real_noise: Tensor | None,
        fake_noise: Tensor,
        dim: int = 1,
        **options: Any,
    ) -> Tensor:
        logits: list[Tensor | None] = [None, _resample_logits(fake_statistics, fake_noise, dim)]
        if real_statistics is not None and real_noise is not None:
            logits[0] = _resample_logits(real_statistics, real_noise, dim)
        return loss(*logits, dim=dim, **options)

    return eager


OPERATORS: tuple[Operator, ...] = (
    Operator(
        name="softmax_kl",
        arguments=_softmax_kl_arguments,
        eager=_softmax_kl,
        logits=("logits",),
        targets=("target",),
    ),
    Operator(
        name="softmax_kl_logits",
        arguments=_softmax_kl_logits_arguments,
        eager=_softmax_kl_logits,
        logits=("p_logits", "q_logits"),
    ),
    Operator(
        name="realness_d_loss",
        arguments=_realness_d_arguments,
        eager=_realness_d_loss,
        logits=("real_logits", "fake_logits"),
        targets=("real_anchor", "fake_anchor"),
        uneven_batches=True,
    ),
    Operator(
        name="realness_g_loss",
        arguments=_realness_g_arguments,
        eager=_realness_g_loss,
        logits=("real_logits", "fake_logits"),
        targets=("real_anchor", "fake_anchor"),
        options=({"objective": 1}, {"objective": 2}, {"objective": 3}),
    ),
    *(_scalar_loss(name, loss) for name, loss in SCALAR_LOSSES.items()),
    Operator(
        name="gradient_reversal",
        arguments=lambda case, draw: {"x": draw.normal(*case.shape)},
        eager=lambda x, alpha: _Scaled.apply(x, -alpha),  # type: ignore[no-untyped-call]
        logits=("x",),
        shapes=PLAIN_SHAPES,
        options=({"alpha": 1.0}, {"alpha": 0.3}),
        has_classes=False,
        reductions=(),
        public="gradient_scale",
        fused="",
        helpers=(),
        constants={"scale": None, "factor": -1.0},
        true_derivative=False,
    ),
    Operator(
        name="gradient_scale",
        arguments=_gradient_scale_arguments,
        eager=_gradient_scale,
        logits=("x",),
        shapes=SAMPLE_SHAPES,
        has_classes=False,
        reductions=(),
        fused="",
        helpers=(),
        constants={"factor": 1.0},
        true_derivative=False,
    ),
    Operator(
        name="negate_",
        arguments=lambda case, draw: {"t": draw.normal(*case.shape)},
        eager=lambda t: -t,
        logits=("t",),
        shapes=PLAIN_SHAPES,
        has_classes=False,
        reductions=(),
        fused="",
        helpers=(),
        writes=("t",),
    ),
    Operator(
        name="resample_logits",
        arguments=_resample_arguments,
        eager=_resample_logits,
        logits=("mu_logvar",),
        has_classes=False,
        reductions=(),
        fused="",
        helpers=("resample_forward", "resample_backward"),
        overflows=True,
    ),
    Operator(
        name="resampled_realness_d_loss",
        arguments=_resampled_realness_d_arguments,
        eager=_resampled(_realness_d_loss),
        logits=("real_statistics", "fake_statistics"),
        shapes=STATISTICS,
        has_classes=False,
        uneven_batches=True,
        overflows=True,
    ),
    Operator(
        name="resampled_realness_g_loss",
        arguments=_resampled_realness_g_arguments,
        eager=_resampled(_realness_g_loss),
        logits=("real_statistics", "fake_statistics"),
        shapes=STATISTICS,
        options=({"objective": 1}, {"objective": 2}, {"objective": 3}),
        has_classes=False,
        overflows=True,
    ),
)
"""The operator table."""


# --- comparing -----------------------------------------------------------------------------------


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
        _value_magnitude(operator, arguments),
        terms,
    )
    for name in names:
        assert_accurate(
            f"{operator.name}: gradient to {name}",
            got_gradients[name],
            exact_gradients[name],
            eager_gradients[name],
            arguments[name].dtype,
            accumulation,
            _gradient_magnitude(operator, arguments, name, cotangent(exact)),
            terms,
        )


def _value_magnitude(operator: Operator, arguments: Arguments) -> float:
    """A row's loss is a difference of logits; a sum adds one per row."""
    rows = sum(operator.rows(arguments, arguments[name]) for name in operator.inputs(arguments))
    size = _logit_magnitude(operator, arguments)
    return size * (rows if arguments.get("reduction") == "sum" else 1)


def _gradient_magnitude(
    operator: Operator, arguments: Arguments, name: str, grad_output: Tensor
) -> float:
    """A gradient is a difference of probabilities or, to a target, of logits, times its weight.

    In float64 logits count for the former too: ``exact`` is rounded like the result under test.
    """
    logits = [arguments[x] for x in operator.inputs(arguments)]
    rows = max(operator.rows(arguments, x) for x in logits)
    weight = largest(grad_output)
    if arguments.get("reduction") == "mean":
        weight /= rows
    if name in operator.targets:
        weight *= rows
    if name in operator.targets or logits[0].dtype == torch.float64:
        weight *= max(1.0, _logit_magnitude(operator, arguments))
    return weight


def _logit_magnitude(operator: Operator, arguments: Arguments) -> float:
    size = max(largest(arguments[name]) for name in operator.inputs(arguments))
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
