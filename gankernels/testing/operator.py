"""One row of the operator table: everything that the generic tests know about an operator."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from gankernels import _scalar_run, functional
from gankernels import reference as reference_operators
from gankernels._backend import REDUCTIONS as REDUCTION_CODES
from gankernels._checks import REDUCTIONS
from gankernels._scalar import ScalarLoss
from gankernels._scalar_call import bound, by_name
from gankernels.testing.cases import FEW, SHAPES, TARGETS, UNEVEN, Arguments, Case, Draw


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
        further: Settings to run a few of the cases with.
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
        weighs: Logits whose probabilities are factors of differences of logits.
        true_derivative: Whether its backward is the derivative of its forward.
        writes: Arguments that it writes, by contract.
        terms: What a loss of one logit per row is of its batches.
    """

    name: str
    arguments: Callable[[Case, Draw], Arguments]
    eager: Callable[..., Tensor]
    logits: tuple[str, ...]
    targets: tuple[str, ...] = ()
    shapes: tuple[Case, ...] = SHAPES
    options: tuple[Mapping[str, Any], ...] = ({},)
    further: tuple[Mapping[str, Any], ...] = ()
    has_classes: bool = True
    uneven_batches: bool = False
    reductions: tuple[str, ...] = REDUCTIONS
    public: str | None = None
    fused: str | None = None
    helpers: tuple[str, ...] = ("scale_gradient", "scale_gradients", "scale_terms_")
    constants: Mapping[str, Any] = field(default_factory=dict)
    overflows: bool = False
    couples_rows: bool = False
    weighs: tuple[str, ...] = ()
    true_derivative: bool = True
    writes: tuple[str, ...] = ()
    terms: ScalarLoss | None = None

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
        if self.terms is not None:
            values.update(_of_terms(self.name, self.terms, arguments))
        schema = operator._schema.arguments
        for argument in schema:
            values.setdefault(argument.name, argument.default_value)
            if str(argument.type) == "bool" and argument.name not in self.constants:
                values[argument.name] = argument.name == "fold_mean" or argument.name in flags
        return tuple(values[argument.name] for argument in schema)

    @property
    def settings(self) -> tuple[Mapping[str, Any], ...]:
        """All of them."""
        return self.options + self.further

    def cases(self) -> Iterator[Case]:
        """Every case of the row."""
        for options in self.options:
            for case in self.shapes:
                yield replace(case, options=options)
            for case in TARGETS if self.targets else ():
                yield replace(case, options=options)
            for case in UNEVEN if self.uneven_batches else ():
                yield replace(case, options=options)
        for options in self.further:
            for case in FEW + (UNEVEN[:1] if self.uneven_batches else ()):
                yield replace(case, options=options)

    def few_cases(self, shape: tuple[int, ...] = (3, 4)) -> Iterator[Case]:
        """One small case per setting and kind of target, for tests that cost more than a call."""
        kinds: list[Case] = [Case()]
        if self.targets:
            kinds = [Case(empty_bins=True, mass=1.5), Case(target="rows")]
        for options in self.settings:
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


def _of_terms(name: str, loss: ScalarLoss, arguments: Arguments) -> Arguments:
    """What the compiled operators of the scalar losses take in place of a loss's own arguments."""
    call = bound(name, loss, by_name(name, loss, (), arguments))
    options = call.options
    terms = _scalar_run.terms_of(name, options.real_label, options.fake_label)
    if loss.relativistic:
        both = _scalar_run.terms_against_means(name, options.scale)
        return dict(zip(("real_term", "fake_term"), both, strict=True))
    tensors = [x for x in (call.real, call.fake) if x is not None]
    places = (
        [0, 1, -1, 0] if loss.pair else [n for i in range(len(tensors)) for n in (i, -1, -1, 0)]
    )
    return {
        "tensors": tensors,
        "names": ",".join(loss.arguments),
        "places": places,
        "terms": terms,
        "scale": float(options.scale),
        "wanted": list(range(len(tensors))),
    }
