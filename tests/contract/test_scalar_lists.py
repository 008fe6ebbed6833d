"""The losses of one logit over lists of tensors, with weights, masks and several outputs, on every backend."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import backends
import pytest
import torch
from torch import Tensor

import gankernels as gk
from contract.common import EXACT, dtype_name, reduced, rows_of_term
from gankernels import _backend, functional
from gankernels._scalar import DISTANCES, FUNCTIONS, SCALAR_LOSSES, Side, term
from gankernels.testing import DTYPES

F64 = torch.float64
JOINT = [
    n for n, loss in SCALAR_LOSSES.items() if loss.real and loss.fake and not loss.relativistic
]
PAIRS = [n for n, loss in SCALAR_LOSSES.items() if loss.pair]
SINGLE = [n for n, loss in SCALAR_LOSSES.items() if len(loss.arguments) == 1]
RELATIVISTIC = [n for n, loss in SCALAR_LOSSES.items() if loss.relativistic]
SHAPES = ((7,), (3, 4), (2, 1, 3, 2), (1,))


def numbers(shape: Sequence[int], seed: int, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def leaves(seed: int, shapes: Sequence[Sequence[int]] = SHAPES) -> list[Tensor]:
    return [numbers(s, seed + i).requires_grad_() for i, s in enumerate(shapes)]


def rows(side: Side, x: Tensor) -> Tensor:
    return side.formula(x, side.label or 0.0)


def agree(found: Any, wanted: Any, inputs: Sequence[Tensor]) -> None:
    """Equal values, first and second derivatives; of any structure of tensors."""
    found, wanted = (list(v) if isinstance(v, list | tuple) else [v] for v in (found, wanted))
    torch.testing.assert_close(found, wanted, **EXACT)
    derivatives = []
    for values in (found, wanted):
        total = sum((x * (2 + torch.arange(x.numel()).reshape(x.shape))).sum() for x in values)
        first = torch.autograd.grad(total, inputs, create_graph=True)
        curved = sum((g * g).sum() for g in first) + sum((x * x).sum() for x in inputs)
        derivatives.append((first, torch.autograd.grad(curved, inputs, retain_graph=True)))
    torch.testing.assert_close(derivatives[0], derivatives[1], rtol=1e-11, atol=1e-12)


# Not by formulas: the gradients that came with the value, times grad_output.
def agree_once(found: Tensor, wanted: Tensor, inputs: Sequence[Tensor]) -> None:
    torch.testing.assert_close(found, wanted, **EXACT)
    got, right = (
        torch.autograd.grad(3 * v.sum(), inputs, retain_graph=True) for v in (found, wanted)
    )
    torch.testing.assert_close(got, right, rtol=1e-11, atol=1e-12)


every_joint = pytest.mark.parametrize("name", JOINT)
every_loss = pytest.mark.parametrize("name", [*JOINT, *PAIRS, *SINGLE])


def by_formula(name: str, batches: Sequence[Tensor]) -> list[Tensor]:
    """The losses of the elements of each term of one discriminator."""
    loss = SCALAR_LOSSES[name]
    if loss.pair is not None:
        return [rows(loss.pair, batches[0] - batches[1])]
    sides = [side for side in (loss.real, loss.fake) if side is not None]
    return [rows(side, x) for side, x in zip(sides, batches, strict=True)]


@every_loss
def test_lists_are_sums_over_discriminators(backend: str, name: str) -> None:
    lists = [leaves(10 * i) for i in range(len(SCALAR_LOSSES[name].arguments))]
    inputs = list(itertools.chain(*lists))
    function = getattr(functional, name)
    for reduction in backends.in_turn(["mean", "sum"]):
        each = [
            sum(reduced(r, reduction) for r in by_formula(name, x))
            for x in zip(*lists, strict=True)
        ]
        total = torch.stack(each).sum()  # type: ignore[arg-type]
        agree(function(*lists, reduction, scale=0.7), 0.7 * total, inputs)
        agree_once(function(*lists, reduction, average=True), total / len(SHAPES), inputs)
        both = function(*map(tuple, lists), reduction, per_output=True)
        agree(both, (total, torch.stack(each)), inputs)  # type: ignore[arg-type]


@every_loss
def test_lists_of_losses_of_elements(backend: str, name: str) -> None:
    lists = [leaves(10 * i) for i in range(len(SCALAR_LOSSES[name].arguments))]
    found = getattr(functional, name)(*lists, "none", average=True)
    wanted = [
        torch.stack(by_formula(name, x)).sum(0) / len(SHAPES) for x in zip(*lists, strict=True)
    ]
    agree(found, wanted, list(itertools.chain(*lists)))


@every_joint
def test_terms_apart(backend: str, name: str) -> None:
    """Each is a loss of its own: the gradient of one batch does not depend on the other's factor."""
    loss, function = SCALAR_LOSSES[name], getattr(functional, name)
    assert loss.real
    assert loss.fake
    real, fake = leaves(0), leaves(10)
    for reduction in backends.in_turn(["mean", "sum"]):
        terms = [
            torch.stack([reduced(rows(side, x), reduction) for x in given]).sum()
            for side, given in ((loss.real, real), (loss.fake, fake))
        ]
        agree(function(real, fake, reduction, return_terms=True), terms, [*real, *fake])
    one = function(real[1], fake[1], "none", return_terms=True)
    agree(one, [rows(loss.real, real[1]), rows(loss.fake, fake[1])], [real[1], fake[1]])
    of_real = function(real[1], fake[1], return_terms=True)[0]
    to_real, to_fake = torch.autograd.grad(of_real, [real[1], fake[1]], allow_unused=True)
    assert to_real is not None
    assert to_fake is None


# --- weights and masks ----------------------------------------------------------------------------

WEIGHTS: dict[str, Callable[[tuple[int, ...]], Tensor]] = {
    "of samples": lambda shape: numbers(shape[:1], 5).abs(),
    "of elements": lambda shape: numbers(shape, 5).abs(),
    "of elements, transposed": lambda shape: (
        numbers(shape[::-1], 5).abs().permute(*reversed(range(len(shape))))
    ),
    "expanded": lambda shape: numbers((1,), 5).abs().expand(shape),
    "some zero": lambda shape: numbers(shape, 5).relu(),
}


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("name", ["logistic_d_real_loss", "relativistic_pairing_g_loss"])
def test_weights(backend: str, name: str, kind: str) -> None:
    function = getattr(functional, name)
    shape = (5, 3, 3)  # an odd number to a sample: weights change within a vector
    logits = [
        numbers(shape, i).requires_grad_() for i, _ in enumerate(SCALAR_LOSSES[name].arguments)
    ]
    weight = WEIGHTS[kind](shape)
    (given,) = by_formula(name, logits)
    full = weight.reshape(-1, 1, 1) if weight.ndim == 1 else weight
    for reduction in backends.in_turn(["mean", "sum", "none"]):
        wanted = reduced(given * full, reduction)
        agree(function(*logits, reduction, weight=weight), wanted, logits)
        agree_once(function(*logits, reduction, weight=weight), wanted, logits)
        learned = weight.detach().clone().requires_grad_()
        over = learned.reshape(-1, 1, 1) if learned.ndim == 1 else learned
        found = function(*logits, reduction, weight=learned)
        agree(found, reduced(given * over, reduction), [*logits, learned])
        agree_once(
            function(*logits, reduction, weight=learned),
            reduced(given * over, reduction),
            [*logits, learned],
        )


MASKS: dict[str, Callable[[tuple[int, ...]], Tensor]] = {
    "of samples": lambda shape: torch.arange(shape[0]) % 2 == 0,
    "of elements": lambda shape: numbers(shape, 6) > 0,
    "of all": lambda shape: torch.ones(shape, dtype=torch.bool),
}


@pytest.mark.parametrize("kind", MASKS)
@every_joint
def test_masks(backend: str, name: str, kind: str) -> None:
    """What is not kept does not count, and may be anything."""
    loss, function = SCALAR_LOSSES[name], getattr(functional, name)
    assert loss.real
    assert loss.fake
    shape = (5, 4)
    mask = MASKS[kind](shape)
    full = mask.reshape(-1, 1).expand(shape) if mask.ndim == 1 else mask
    real, fake = (numbers(shape, i) for i in range(2))
    kept = [x[full].clone().requires_grad_() for x in (real, fake)]
    for junk in (float("nan"), float("inf"), -float("inf")):
        given = [torch.where(full, x, junk).requires_grad_() for x in (real, fake)]
        for reduction in backends.in_turn(["mean", "sum"]):
            found = function(*given, reduction, real_mask=mask, fake_mask=mask)
            wanted = reduced(rows(loss.real, kept[0]), reduction) + reduced(
                rows(loss.fake, kept[1]), reduction
            )
            torch.testing.assert_close(found, wanted, **EXACT)
            for got, right in zip(
                torch.autograd.grad(found, given), torch.autograd.grad(wanted, kept), strict=True
            ):
                torch.testing.assert_close(got[full], right, **EXACT)
                assert bool((got[~full] == 0).all())


@pytest.mark.parametrize("name", SINGLE)
def test_none_kept(backend: str, name: str) -> None:
    x = torch.tensor([[1.0, float("nan")]], requires_grad=True)
    for reduction in ("mean", "sum", "none"):
        found = getattr(functional, name)(x, reduction, mask=torch.zeros(1, 2, dtype=torch.bool))
        assert bool((found == 0).all())
        (gradient,) = torch.autograd.grad(found.sum(), x)
        assert torch.equal(gradient, torch.zeros(1, 2))


def test_weight_and_mask(backend: str) -> None:
    x, weight = numbers((4, 3), 0).requires_grad_(), numbers((4,), 1).requires_grad_()
    mask = numbers((4, 3), 2) > 0
    found = gk.hinge_d_fake_loss(x, weight=weight, mask=mask)
    wanted = ((1 + x).relu() * weight.reshape(-1, 1))[mask].mean()
    agree(found, wanted, [x, weight])
    infinite = torch.where(mask, weight.detach().reshape(-1, 1), float("inf"))
    torch.testing.assert_close(gk.hinge_d_fake_loss(x, weight=infinite, mask=mask), wanted)


# --- memory, dtypes, number of terms --------------------------------------------------------------

ORDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x.contiguous(),
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "channels last": lambda x: x.permute(0, 2, 1).contiguous().permute(0, 2, 1),
    "sliced": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    "expanded": lambda x: x[:1].expand(x.shape),
}


@pytest.mark.parametrize("orders", [*itertools.product(ORDERS, ORDERS)], ids="-".join)
def test_pairs_in_any_memory_order(backend: str, orders: tuple[str, str]) -> None:
    """An element meets the one at its place, wherever both lie."""
    real, fake = (ORDERS[o](numbers((3, 4, 5), i)) for i, o in enumerate(orders))
    weight = ORDERS[orders[0]](numbers((3, 4, 5), 7))
    for reduction in backends.in_turn(["mean", "none"]):
        inputs = [x.detach().requires_grad_() for x in (real, fake)]
        assert inputs[0].stride() == real.stride()
        found = gk.relativistic_pairing_d_loss(*inputs, reduction, weight=weight)
        wanted = reduced(torch.nn.Softplus(threshold=1e9)(fake - real) * weight, reduction)
        torch.testing.assert_close(found, wanted, **EXACT)
        for got, x in zip(torch.autograd.grad(found.sum(), inputs), inputs, strict=True):
            (right,) = torch.autograd.grad(
                reduced(
                    torch.nn.Softplus(threshold=1e9)(inputs[1] - inputs[0]) * weight, reduction
                ).sum(),
                x,
            )
            torch.testing.assert_close(got, right, **EXACT)


@pytest.mark.parametrize("other", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("name", ["hinge_d_loss", *PAIRS, *RELATIVISTIC])
def test_dtypes_of_both_batches(
    backend: str, name: str, dtype: torch.dtype, other: torch.dtype
) -> None:
    """Each gradient has the dtype of its own logits; what is of one dtype is exact in it."""
    real = numbers((6, 3), 0, dtype).requires_grad_()
    fake = numbers((6, 3), 1, other).requires_grad_()
    loss = getattr(functional, name)(real, fake)
    assert loss.dtype == (F64 if F64 in (dtype, other) else torch.float32)
    gradients = torch.autograd.grad(loss, [real, fake])
    assert [g.dtype for g in gradients] == [dtype, other]
    exact = [x.detach().double().requires_grad_() for x in (real, fake)]
    wanted = getattr(functional, name)(*exact)
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=1e-6)
    for got, right in zip(gradients, torch.autograd.grad(wanted, exact), strict=True):
        eps = max(1e-6, 4 * torch.finfo(got.dtype).eps)
        torch.testing.assert_close(got.double(), right, rtol=eps, atol=eps)


@pytest.mark.parametrize("count", [23, 53])
def test_more_terms_than_a_launch_takes(backend: str, count: int) -> None:
    real = [numbers((i % 5, 2), i).requires_grad_() for i in range(1, count + 1)]
    real = [x for x in real if x.numel()]
    fake = [x.detach().flip(0).requires_grad_() for x in real]
    softplus = torch.nn.Softplus(threshold=1e9)
    each = [softplus(-r).sum() + softplus(f).sum() for r, f in zip(real, fake, strict=True)]
    total = torch.stack(each).sum()
    agree_once(gk.logistic_d_loss(real, fake, "sum"), total, [*real, *fake])
    found = gk.logistic_d_loss(real, fake, "sum", per_output=True)[1]
    agree_once(found, torch.stack(each), [*real, *fake])
    elements = gk.logistic_d_loss(real, fake, "none")
    torch.testing.assert_close(
        elements, [softplus(-r) + softplus(f) for r, f in zip(real, fake, strict=True)], **EXACT
    )


def test_an_empty_discriminator(backend: str) -> None:
    x = [numbers((0, 3), 0).requires_grad_(), numbers((2,), 1).requires_grad_()]
    assert bool(gk.nonsaturating_g_loss(x).isnan())
    loss = gk.nonsaturating_g_loss(x, "sum")
    agree_once(loss, torch.nn.functional.softplus(-x[1]).sum(), x[1:])


# --- any terms ------------------------------------------------------------------------------------


@pytest.mark.compiled
@pytest.mark.parametrize("functions", [*itertools.product(FUNCTIONS, FUNCTIONS)], ids="-".join)
def test_any_terms(backend: str, functions: tuple[str, str]) -> None:
    """Every number of a term away from its default, on a pair and on weighted logits, beside each other."""
    terms = [
        term(functions[0], sign=-1.0, offset=0.3, weight=1.7, slope=0.2),
        term(functions[1], sign=1.0, offset=-0.4, weight=0.6, slope=-0.1),
    ]
    x, y, z, w = (numbers((4, 3), i).requires_grad_() for i in range(4))
    # (logits, other, weight, output): the first output has both terms, the second a third.
    places = (0, 1, -1, 0, 2, -1, 3, 0, 4, -1, -1, 1)
    v = numbers((4, 3), 9).requires_grad_()
    for reduction in backends.in_turn(list(_backend.REDUCTIONS)):
        code = _backend.REDUCTIONS[reduction]
        numbers_of = (*terms[0], *terms[1], *terms[0])
        found = _backend.scalar_loss((x, y, z, w, v), "x,y,z,w,v", places, numbers_of, 1.3, code)
        wanted = [
            reduced(1.3 * rows_of_term(terms[0], x - y), reduction)
            + reduced(1.3 * w * rows_of_term(terms[1], z), reduction),
            reduced(1.3 * rows_of_term(terms[0], v), reduction),
        ]
        agree(list(found), wanted, [x, y, z, w, v])


REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "no term": (((), "", (), ()), "tensors must hold at least one, got an empty list"),
    "half a place": ((1, "x", (0, -1, -1), ()), "places must hold .logits, other"),
    "numbers of another term": (
        (1, "x", (0, -1, -1, 0), (0.0,) * 4),
        "terms must hold 5 numbers for each of 1",
    ),
    "an unknown function": (
        (1, "x", (0, -1, -1, 0), (5.0, 1.0, 0.0, 1.0, 0.0)),
        "terms must be .function",
    ),
    "no logits": (
        (1, "x", (-1, 0, -1, 0), (0.0,) * 5),
        "places must name the logits of every term, got -1",
    ),
    "a tensor too many": (
        (2, "x,y", (0, -1, -1, 0), (0.0,) * 5),
        "places must name each of 2 tensors once",
    ),
    "a tensor twice": (
        (1, "x", (0, 0, -1, 0), (0.0,) * 5),
        "places must name each of 1 tensors once, got 0",
    ),
    "beyond the list": (
        (1, "x", (1, -1, -1, 0), (0.0,) * 5),
        "places must name each of 1 tensors once, got 1",
    ),
    "an output left out": (
        (1, "x", (0, -1, -1, 1), (0.0,) * 5),
        "outputs in order from 0, got 1 after -1",
    ),
}


@pytest.mark.compiled
@pytest.mark.parametrize("what", REFUSED)
def test_what_the_operator_refuses(backend: str, what: str) -> None:
    (count, names, places, terms), message = REFUSED[what]
    tensors = tuple(torch.zeros(3) for _ in range(count)) if isinstance(count, int) else ()
    with pytest.raises(ValueError, match=message):
        _backend.scalar_loss(tensors, names, places, terms, 1.0, 1)


@pytest.mark.compiled
def test_tensors_are_named(backend: str) -> None:
    x = torch.zeros(3)
    with pytest.raises(TypeError, match="b must be a floating-point tensor"):
        _backend.scalar_loss(
            (x, x.long()), "a,b", (0, -1, -1, 0, 1, -1, -1, 0), (0.0,) * 10, 1.0, 1
        )
    with pytest.raises(ValueError, match="a and b must have the same shape"):
        _backend.scalar_loss((x, x[:2]), "a,b", (0, 1, -1, 0), (0.0,) * 5, 1.0, 1)
    with pytest.raises(TypeError, match=r"w must be of torch\.float32 beside a of torch\.float16"):
        _backend.scalar_loss((x.half(), x.half()), "a,w", (0, -1, 1, 0), (0.0,) * 5, 1.0, 1)
    with pytest.raises(TypeError, match="a and b must both be of float64 or neither"):
        _backend.scalar_loss(
            (x, x.double()), "a,b", (0, -1, -1, 0, 1, -1, -1, 0), (0.0,) * 10, 1.0, 1
        )


# --- feature matching -----------------------------------------------------------------------------


@pytest.mark.parametrize("norm", DISTANCES)
def test_feature_matching(backend: str, norm: str) -> None:
    shapes = [[(2, 3, 4), (2, 5)], [(1, 7)]]
    real = [
        [numbers(s, 3 * i + j).requires_grad_() for j, s in enumerate(x)]
        for i, x in enumerate(shapes)
    ]
    fake = [
        [numbers(s, 50 + 3 * i + j).requires_grad_() for j, s in enumerate(x)]
        for i, x in enumerate(shapes)
    ]
    flat = [x for maps in fake for x in maps]
    pairs = [
        (a.detach(), b) for i, j in zip(real, fake, strict=True) for a, b in zip(i, j, strict=True)
    ]
    each = [((b - a).abs() if norm == "l1" else (b - a).square()).mean() for a, b in pairs]
    total = torch.stack(each).sum()
    agree(gk.feature_matching_loss(real, fake, norm=norm, scale=10.0), 10 * total, flat)
    agree_once(gk.feature_matching_loss(real, fake, norm=norm, average=True), total / 3, flat)
    loss = gk.feature_matching_loss(real, fake, norm=norm)
    loss.backward()
    assert all(x.grad is None for maps in real for x in maps)
    agree_once(gk.feature_matching_loss(real[0][0], fake[0][0], norm=norm), each[0], flat[:1])


def test_equal_features_have_no_gradient(backend: str) -> None:
    a = torch.tensor([1.0, 2.0])
    b = torch.tensor([1.0, 5.0], requires_grad=True)
    loss = gk.feature_matching_loss(a, b)
    loss.backward()
    assert loss.item() == 1.5
    assert torch.equal(b.grad, torch.tensor([0.0, 0.5]))  # type: ignore[arg-type]


# --- relativistic means ---------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [None, 0])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("name", RELATIVISTIC)
def test_means(backend: str, name: str, detach: bool, dim: int | None) -> None:
    loss = SCALAR_LOSSES[name]
    assert loss.real
    assert loss.fake
    real, fake = numbers((4, 3, 2), 0).requires_grad_(), numbers((5, 3, 2), 1).requires_grad_()

    def mean(x: Tensor) -> Tensor:
        held = x.detach() if detach else x
        return held.mean() if dim is None else held.mean(0, keepdim=True)

    of_real, of_fake = rows(loss.real, real - mean(fake)), rows(loss.fake, fake - mean(real))
    options = {"detach_means": detach, "mean_dim": dim}
    for reduction in backends.in_turn(["mean", "sum"]):
        total = reduced(of_real, reduction) + reduced(of_fake, reduction)
        found = getattr(functional, name)(real, fake, reduction, **options)
        agree(found, total, [real, fake])
        both = getattr(functional, name)(
            [real] * 2, [fake] * 2, reduction, **options, per_output=True
        )
        agree(both, (2 * total, torch.stack([total, total])), [real, fake])
        if name == "relativistic_g_loss":
            one = getattr(functional, name)(real, fake, reduction, one_sided=True, **options)
            inputs = [fake] if detach else [real, fake]
            agree(one, reduced(of_fake, reduction), inputs)


@pytest.mark.parametrize("name", [*JOINT, *PAIRS, *RELATIVISTIC])
def test_a_tensor_in_both_lists(backend: str, name: str) -> None:
    """Each list says what its entries are, whichever tensors these are."""
    x, y = (numbers((5,), i).requires_grad_() for i in range(2))
    function = getattr(functional, name)
    loss, each = function([x, y], [y, x], per_output=True)
    apart = [function(x, y), function(y, x)]
    agree((loss, each), (apart[0] + apart[1], torch.stack(apart)), [x, y])
    agree_once(each[0], apart[0], [x, y])


# --- modes ----------------------------------------------------------------------------------------


def of_everything(real: list[Tensor], fake: list[Tensor], weight: Tensor, mask: Tensor) -> Tensor:
    terms = gk.hinge_d_loss(real, fake, fake_weight=[weight, None], return_terms=True, average=True)
    total, each = gk.relativistic_pairing_g_loss(real, fake, per_output=True)
    matching = gk.feature_matching_loss(real, fake)
    masked = gk.lsgan_d_real_loss(real, mask=[mask, None], real_label=0.9)
    elements = gk.logistic_d_loss(real, fake, "none")[0].mean()
    return terms[0] + 2 * terms[1] + total + each.max() + matching + masked + elements


@pytest.mark.dynamo
@pytest.mark.backends("cpu", "reference")
def test_compiles_whole(backend: str) -> None:
    shapes = ((3, 4), (2, 5))
    arguments = leaves(0, shapes), leaves(10, shapes), numbers((3,), 3), numbers((3, 4), 4) > 0
    inputs = [*arguments[0], *arguments[1]]
    wanted = of_everything(*arguments)
    torch._dynamo.reset()
    found = torch.compile(of_everything, fullgraph=True, backend="aot_eager")(*arguments)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs), torch.autograd.grad(wanted, inputs)
    )


@pytest.mark.backends("cpu")
def test_torch_func(backend: str) -> None:
    shapes = ((3, 4), (2, 5))
    real, fake = leaves(0, shapes), leaves(10, shapes)
    weight, mask = numbers((3,), 3), numbers((3, 4), 4) > 0
    wanted = torch.autograd.grad(of_everything(real, fake, weight, mask), fake)
    plain = [x.detach() for x in fake]
    found = torch.func.grad(
        lambda a, b: of_everything([x.detach() for x in real], [a, b], weight, mask), argnums=(0, 1)
    )(*plain)
    torch.testing.assert_close(found, wanted)


@pytest.mark.backends("cpu")
def test_gradients_of_lists_at_once(backend: str) -> None:
    real, fake = leaves(0), leaves(10)
    loss, (to_real, to_fake) = gk.value_and_grad(gk.hinge_d_loss)(real, fake, average=True)
    wanted = gk.hinge_d_loss(real, fake, average=True)
    torch.testing.assert_close(loss, wanted.detach())
    torch.testing.assert_close(
        [*to_real, *to_fake],
        list(torch.autograd.grad(wanted, [*real, *fake])),  # type: ignore[misc]
    )


@pytest.mark.compiled
@pytest.mark.backends("cpu")
@pytest.mark.parametrize("dynamic", [False, True])
def test_operator_is_a_good_one(backend: str, dynamic: bool) -> None:
    """PyTorch's own checks: schema, autograd registration, fake tensors, AOT dispatch."""
    x, y, w = (numbers((3, 4), i).requires_grad_() for i in range(3))
    places, terms = (0, 1, 2, 0), term("softplus", sign=-1.0)
    utilities = ["test_schema", "test_faketensor"]
    utilities.append("test_aot_dispatch_dynamic" if dynamic else "test_aot_dispatch_static")
    torch.library.opcheck(
        torch.ops.gankernels.scalar_loss.default,
        ([x, y, w], "x,y,w", places, terms, 1.0, 1),
        test_utils=utilities,
    )
