"""What users and libraries do with autograd around a loss: the gradients of the plain call, to the bit."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from contract.common import of_tensors
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gankernels as gk
from gankernels.testing import OPERATORS
from tools.torture.attack import Found

Closed = Callable[..., Tensor]
Gradients = tuple[Tensor, ...]


def plain(loss: Closed, leaves: list[Tensor]) -> Gradients:
    return torch.autograd.grad(loss(*leaves).sum(), leaves)


def twice(loss: Closed, leaves: list[Tensor]) -> Gradients:
    value = loss(*leaves).sum()
    torch.autograd.grad(value, leaves, retain_graph=True)
    return torch.autograd.grad(value, leaves)


def one_leaf_at_a_time(loss: Closed, leaves: list[Tensor]) -> Gradients:
    value = loss(*leaves).sum()
    return tuple(torch.autograd.grad(value, leaf, retain_graph=True)[0] for leaf in leaves)


def saved_on_cpu(loss: Closed, leaves: list[Tensor]) -> Gradients:
    with torch.autograd.graph.save_on_cpu():
        value = loss(*leaves).sum()
    return torch.autograd.grad(value, leaves)


def saved_packed(loss: Closed, leaves: list[Tensor]) -> Gradients:
    """As activation compression does: what is saved goes through bytes."""
    hooks = torch.autograd.graph.saved_tensors_hooks(pickle.dumps, pickle.loads)
    with hooks:
        value = loss(*leaves).sum()
    return torch.autograd.grad(value, leaves)


def recomputed(loss: Closed, leaves: list[Tensor], reentrant: bool) -> Gradients:
    value = checkpoint(loss, *leaves, use_reentrant=reentrant).sum()
    value.backward()
    return tuple(leaf.grad for leaf in leaves)  # type: ignore[misc]


def under_anomaly_detection(loss: Closed, leaves: list[Tensor]) -> Gradients:
    with torch.autograd.detect_anomaly(check_nan=False):
        return plain(loss, leaves)


def in_another_thread(loss: Closed, leaves: list[Tensor]) -> Gradients:
    """Forward here, backward there."""
    value = loss(*leaves).sum()
    found: list[Gradients] = []
    thread = threading.Thread(target=lambda: found.append(torch.autograd.grad(value, leaves)))
    thread.start()
    thread.join()
    return found[0]


def after_no_grad(loss: Closed, leaves: list[Tensor]) -> Gradients:
    with torch.no_grad():
        loss(*leaves)
    with torch.inference_mode():
        loss(*leaves)
    with torch.no_grad(), torch.enable_grad():
        return plain(loss, leaves)


def with_hooks_that_change(loss: Closed, leaves: list[Tensor]) -> Gradients:
    """A hook's gradient goes on, not the one that it was given."""
    for leaf in leaves:
        leaf.register_hook(lambda g: g * 2)
    return tuple(g / 2 for g in plain(loss, leaves))


def of_views_in_one_buffer(loss: Closed, leaves: list[Tensor]) -> Gradients:
    """The leaves are parts of one flat buffer, as sharded and fused optimizers keep them."""
    flat = torch.cat([leaf.detach().flatten() for leaf in leaves]).requires_grad_()
    parts = flat.split([leaf.numel() for leaf in leaves])
    views = [part.view(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    (gradient,) = torch.autograd.grad(loss(*views).sum(), flat)
    back = gradient.split([leaf.numel() for leaf in leaves])
    return tuple(g.view(leaf.shape) for g, leaf in zip(back, leaves, strict=True))


def in_static_buffers(loss: Closed, leaves: list[Tensor]) -> Gradients:
    """As CUDA graphs have it: the same memory at every step, new numbers in it."""
    buffers = [torch.zeros_like(leaf).requires_grad_() for leaf in leaves]
    found: Gradients = ()
    for numbers in ([torch.ones_like(leaf) for leaf in leaves], leaves):
        with torch.no_grad():
            for buffer, new in zip(buffers, numbers, strict=True):
                buffer.copy_(new)
        found = plain(loss, buffers)
    return found


def first_of_second_order(loss: Closed, leaves: list[Tensor]) -> Gradients:
    """Under create_graph, and the second derivative taken before the first is read."""
    first = torch.autograd.grad(loss(*leaves).sum(), leaves, create_graph=True)
    wanted = sum((g.double().square().sum() for g in first), torch.zeros((), dtype=torch.float64))
    if wanted.requires_grad:
        torch.autograd.grad(wanted, leaves, allow_unused=True)
    return tuple(g.detach() for g in first)


def in_mixed_orders(loss: Closed, leaves: list[Tensor]) -> Gradients:
    """The second derivatives one pair of leaves at a time: in one order, in the other one, and all at once."""
    first = torch.autograd.grad(loss(*leaves).sum(), leaves, create_graph=True)
    squares = [g.double().square().sum() for g in first]
    pairs = [(i, j) for i, s in enumerate(squares) if s.requires_grad for j in range(len(leaves))]

    def of(order: list[tuple[int, int]]) -> dict[tuple[int, int], Tensor | None]:
        return {
            (i, j): torch.autograd.grad(squares[i], leaves[j], retain_graph=True, allow_unused=True)[0]
            for i, j in order
        }  # fmt: skip

    forth, back = of(pairs), of(pairs[::-1])
    for pair, value in forth.items():
        torch.testing.assert_close(back[pair], value, rtol=0, atol=0)
    if pairs:
        total = sum(
            (squares[i] for i in {i for i, _ in pairs}), torch.zeros((), dtype=torch.float64)
        )
        at_once = torch.autograd.grad(total, leaves, allow_unused=True)
        for j, value in enumerate(at_once):
            parts = [x for (_, k), x in forth.items() if k == j and x is not None]
            if parts:
                torch.testing.assert_close(sum(parts[1:], parts[0]), value, rtol=1e-4, atol=1e-5)
    return tuple(g.detach() for g in first)


EXACT: dict[str, Callable[[Closed, list[Tensor]], Gradients]] = {
    "twice, the graph retained": twice,
    "one leaf at a time": one_leaf_at_a_time,
    "save_on_cpu": saved_on_cpu,
    "saved tensors through bytes": saved_packed,
    "checkpoint": partial(recomputed, reentrant=False),
    "checkpoint, reentrant": partial(recomputed, reentrant=True),
    "anomaly detection": under_anomaly_detection,
    "backward in another thread": in_another_thread,
    "after no_grad and inference mode": after_no_grad,
    "hooks that change": with_hooks_that_change,
    "views in one buffer": of_views_in_one_buffer,
    "static buffers": in_static_buffers,
}
CLOSE = {
    "second order first": first_of_second_order,
    "second orders in mixed order": in_mixed_orders,
}


def of_operators(found: Found, share: float) -> None:
    for operator in OPERATORS:
        cases = list(operator.few_cases((4, 6)))
        for case in cases if share == 1 else cases[-1:]:
            arguments = operator.draw(case, torch.float32)
            names = operator.inputs(arguments)
            loss, tensors = of_tensors(operator, arguments, names)

            def fresh(tensors: tuple[Tensor, ...] = tensors) -> list[Tensor]:
                return [x.clone().requires_grad_() for x in tensors]

            expected = plain(loss, fresh())
            for what, abuse in {**EXACT, **CLOSE}.items():
                if what in CLOSE and not operator.true_derivative:
                    continue
                close = {"rtol": 1e-4, "atol": 1e-5} if what in CLOSE else {"rtol": 0, "atol": 0}

                def check(
                    abuse: Any = abuse, loss: Closed = loss, fresh: Any = fresh,
                    expected: Gradients = expected, close: Any = close,
                ) -> None:  # fmt: skip
                    torch.testing.assert_close(abuse(loss, fresh()), expected, **close)

                found.attempt(f"{operator.name}, {case.label}: {what}", check)


def modules() -> list[nn.Module]:
    """One of every module of the package that has no networks in it."""
    anchors = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.5, 0.3, 0.2])
    return [
        gk.RealnessLoss(*anchors), gk.LogisticLoss(), gk.HingeLoss(), gk.WassersteinLoss(), gk.LSGANLoss(),
        gk.RelativisticLoss(), gk.GradientReversal(schedule="ganin", steps=10), gk.LeCamPenalty(),
    ]  # fmt: skip


def value(module: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """What a module of the package computes, whatever its method is called."""
    if isinstance(module, gk.GANLoss):
        return module.discriminator(real, fake)
    return module(real) if isinstance(module, gk.GradientReversal) else module(real, fake)  # type: ignore[no-any-return]


class Holder(nn.Module):
    """A user's module with one of the package's in it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor:
        return value(self.module, *inputs)


def functionally(module: nn.Module, real: Tensor, fake: Tensor) -> None:
    """With other buffers handed in: what a module computes that has loaded them."""
    buffers = module.named_buffers()
    handed = {name: x * 0.5 if x.is_floating_point() else x.clone() for name, x in buffers}
    loaded = copy.deepcopy(module)
    loaded.load_state_dict({**loaded.state_dict(), **handed})
    state = {f"module.{name}": x.clone() for name, x in handed.items()}
    got = torch.func.functional_call(Holder(module), state, (real, fake))
    torch.testing.assert_close(got, value(loaded, real, fake), rtol=0, atol=0)
    # Anchors decide the value; a reversal's strength and averages before the first batch do not.
    if isinstance(module, gk.RealnessLoss) and torch.equal(got, value(module, real, fake)):
        raise AssertionError("it computes with its own buffers")


def of_modules(found: Found) -> None:
    real, fake = torch.randn(5, 3), torch.randn(5, 3)
    ways: dict[str, Callable[[nn.Module], nn.Module]] = {
        "deepcopy": copy.deepcopy,
        "pickle": lambda m: pickle.loads(pickle.dumps(m)),
        "moved to float64 and back": lambda m: m.double().float(),
    }

    for module in modules():
        for what, way in ways.items():

            def check(module: nn.Module = module, way: Any = way) -> None:
                other = way(copy.deepcopy(module))
                other.load_state_dict(module.state_dict())
                expected = value(copy.deepcopy(module), real, fake)
                torch.testing.assert_close(value(other, real, fake), expected, rtol=0, atol=0)

            found.attempt(f"{type(module).__name__}: {what}", check)
        found.attempt(
            f"{type(module).__name__}: functional_call",
            lambda m=module: functionally(copy.deepcopy(m), real, fake),
        )


def run(share: float) -> Found:
    found = Found(note=f"{len(EXACT) + len(CLOSE)} ways of every operator and setting")
    of_operators(found, share)
    of_modules(found)
    return found
