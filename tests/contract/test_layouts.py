"""Any strides in, the same numbers out; nothing outside a view is read or written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from backends import in_turn
from torch import Tensor

from contract.common import (
    bounded_settings,
    call,
    dtype_name,
    every_dtype,
    every_setting,
    loss_settings,
    targets_of,
    uneven_settings,
    with_leaves,
)
from gankernels.testing import Arguments, Case, Operator, compare


def transposed(x: Tensor) -> Tensor:
    return x.transpose(0, -1).contiguous().transpose(0, -1)


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def middle_first(x: Tensor) -> Tensor:
    return x.movedim(1, 0).contiguous().movedim(0, 1)


def sliced(x: Tensor) -> Tensor:
    """Every second element in every dimension of a buffer that is NaN elsewhere."""
    buffer = x.new_full([2 * size + 1 for size in x.shape], float("nan"))
    view = buffer[tuple(slice(1, None, 2) for _ in x.shape)]
    view.copy_(x)
    return view


def padded(x: Tensor) -> Tensor:
    """Contiguous but for a stride between rows that leaves a NaN after each."""
    buffer = x.new_full([*x.shape[:-1], x.shape[-1] + 1], float("nan"))
    view = buffer[..., :-1]
    view.copy_(x)
    return view


def unaligned(x: Tensor) -> Tensor:
    buffer = x.new_full([x.numel() + 2], float("nan"))
    view = buffer[1:-1].view(x.shape)
    view.copy_(x)
    return view


def negative_view(x: Tensor) -> Tensor:
    """A view with the negative bit set, as the imaginary part of a conjugate is."""
    return torch._neg_view(-x)


# The reference leaves strides to PyTorch.
pytestmark = pytest.mark.backends("cpu", "triton", "cuda")

LAYOUTS = [transposed, channels_last, middle_first, sliced, padded, unaligned, negative_view]
SHAPES = [Case((3, 5, 2, 4)), Case((3, 2, 4, 5), dim=-1), Case((6, 5)), Case((5, 6), dim=0)]
Layout = Callable[[Tensor], Tensor]


def shaped(case: Case, like: Case, target: str) -> Case:
    return Case(like.shape, dim=like.dim, target=target, options=case.options)


def arrange(operator: Operator, arguments: Arguments, layout: Layout) -> Arguments:
    """The same call with every tensor of the logits' shape in another layout."""
    shapes = {arguments[name].shape for name in operator.inputs(arguments)}
    return {
        name: layout(x) if isinstance(x, Tensor) and x.shape in shapes else x
        for name, x in arguments.items()
    }


@pytest.mark.parametrize("shape", SHAPES, ids=lambda case: case.label)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@every_setting
def test_layouts(operator: Operator, case: Case, layout: Layout, shape: Case, device: str) -> None:
    for target in in_turn(targets_of(operator)):
        for dtype in in_turn((torch.float32, torch.bfloat16)):
            for reduction in in_turn(operator.reductions_of(case)):
                drawn = operator.draw(shaped(case, shape, target), dtype, device, reduction)
                arguments = arrange(operator, drawn, layout)
                bases = [x._base for x in arguments.values() if isinstance(x, Tensor)]
                before = [None if base is None else base.clone() for base in bases]
                for names in in_turn(operator.differentiations(arguments)):
                    compare(operator, arguments, names)
                for base, copy in zip(bases, before, strict=True):
                    if base is not None:
                        torch.testing.assert_close(base, copy, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@every_setting
def test_only_one_tensor_in_another_layout(operator: Operator, case: Case, layout: Layout) -> None:
    like = shaped(case, SHAPES[0], "rows" if operator.targets else "shared")
    # With a loss per row, batches in different orders of memory must still be paired row by row.
    for reduction in operator.reductions_of(like):
        drawn = operator.draw(like, torch.float32, reduction=reduction)
        for name, x in drawn.items():
            if isinstance(x, Tensor) and x.ndim == 4:
                arguments = {**drawn, name: layout(x)}
                compare(operator, arguments, operator.inputs(arguments))


@pytest.mark.parametrize("along", [0, 1, 2])
@every_setting
def test_expanded_inputs(operator: Operator, case: Case, along: int) -> None:
    drawn = operator.draw(shaped(case, Case((3, 4, 2)), "rows"), torch.float32)
    arguments = arrange(operator, drawn, lambda x: x.narrow(along, 0, 1).expand(x.shape))
    for names in in_turn(operator.differentiations(arguments)):
        compare(operator, arguments, names)


@pytest.mark.compiled
@pytest.mark.parametrize(
    "layout", [transposed, channels_last, middle_first], ids=lambda f: f.__name__
)
@bounded_settings
def test_gradients_keep_a_dense_layout(operator: Operator, case: Case, layout: Layout) -> None:
    drawn = operator.draw(shaped(case, SHAPES[0], "shared"), torch.float32, reduction=None)
    arguments = arrange(operator, drawn, layout)
    leaves = {n: arguments[n].detach().requires_grad_() for n in operator.inputs(arguments)}
    value = call(operator, {**arguments, **leaves})
    for leaf in leaves.values():
        (gradient,) = torch.autograd.grad(value.sum(), leaf, retain_graph=True)
        assert gradient.stride() == leaf.stride()


def unit_dims_are_free(x: Tensor) -> Tensor:
    """Size-1 dimensions with strides that mean nothing."""
    return x.as_strided(
        x.shape, [97 if s == 1 else n for s, n in zip(x.shape, x.stride(), strict=True)]
    )


@pytest.mark.parametrize("shape", [(1, 6), (4, 1), (1, 5, 1), (1, 1, 7, 3)])
@every_setting
def test_strides_of_unit_dimensions_do_not_matter(
    operator: Operator, case: Case, shape: tuple[int, ...]
) -> None:
    drawn = operator.draw(shaped(case, Case(shape), "rows"), torch.float32)
    arguments = arrange(operator, drawn, unit_dims_are_free)
    compare(operator, arguments, operator.inputs(arguments))


# --- empty batches -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 3), (2, 4, 0)])
@every_dtype
@loss_settings
def test_empty_batches_are_those_of_pytorch(
    operator: Operator, case: Case, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    for target in in_turn(("shared", "rows")):
        for reduction in in_turn(operator.reductions):
            arguments = operator.draw(shaped(case, Case(shape), target), dtype, reduction=reduction)
            names = operator.inputs(arguments)
            arguments = with_leaves(arguments, names)
            value = call(operator, arguments)
            if reduction == "mean":
                assert value.isnan()
            elif reduction == "sum":
                assert value == 0
            else:
                assert value.numel() == 0
                assert value.shape == call(operator, arguments, operator.reference).shape
            gradients = torch.autograd.grad(value.sum(), [arguments[name] for name in names])
            for name, gradient in zip(names, gradients, strict=True):
                assert gradient.shape == arguments[name].shape
                assert gradient.dtype == dtype, dtype_name(dtype)


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0)])
@uneven_settings
def test_one_empty_batch_of_two(operator: Operator, case: Case, sizes: tuple[int, int]) -> None:
    real, fake = sizes
    like = Case((real, 4), second_batch=fake, options=case.options)
    for reduction in in_turn(operator.reductions_of(like)):
        arguments = operator.draw(like, torch.float32, reduction=reduction)
        compare(operator, arguments, operator.inputs(arguments))
