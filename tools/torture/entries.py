"""The operators' own entry points, past Python's checks: any value of a right type, and the process survives."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import gankernels  # noqa: F401  (its operators)
from gankernels import _backend
from tools.torture.attack import Found

CALLS = 60_000
DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.int64, torch.bool, torch.complex64, torch.uint8),
)
SHAPES = ((), (0,), (1,), (4,), (4, 5), (5, 4), (4, 0), (0, 5), (2, 3, 4), (4, 1), (1, 1, 1, 1))
INTEGERS = (-(2**62), -100, -3, -2, -1, 0, 1, 2, 3, 4, 7, 100, 2**31, 2**62)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 3.0, 1e300, -1e300, 5e-324, float("inf"), float("nan"))
TEXTS = ("", "a", "real_logits,fake_logits", ",,,", "é" * 50, "x\0y")


def tensor(rng: random.Random) -> Tensor:
    """Mostly two that fit each other, so that a call passes some of the checks."""
    usual = rng.random() < 0.7
    shape = rng.choice(((4, 5), (5,))) if usual else rng.choice(SHAPES)
    dtype = torch.float32 if usual else rng.choice(DTYPES)
    x = torch.zeros(shape, dtype=dtype, device="meta" if rng.random() < 0.03 else "cpu")
    kind = rng.random()
    if kind < 0.1 and x.ndim == 2:
        x = x.t()
    elif kind < 0.15 and x.numel() and x.ndim and not x.is_meta:
        x = x[:1].expand(x.shape)
    elif kind < 0.18 and not x.is_meta:
        x = x.to_sparse()
    elif kind < 0.28 and x.is_floating_point():
        x.requires_grad_()
    return x


def value(kind: str, rng: random.Random) -> Any:
    """Of a type of a schema."""
    if kind.startswith("Optional"):
        inner = kind.removeprefix("Optional[").removesuffix("]")
        return None if rng.random() < 0.4 else value(inner, rng)
    if kind.startswith("List"):
        inner = kind.removeprefix("List[").removesuffix("]")
        return [value(inner, rng) for _ in range(rng.choice((0, 1, 2, 2, 4, 8, 40)))]
    makers: dict[str, Callable[[], Any]] = {
        "Tensor": lambda: tensor(rng),
        "int": lambda: rng.choice(INTEGERS if rng.random() < 0.3 else (0, 1, 2, -1)),
        "SymInt": lambda: rng.choice(INTEGERS if rng.random() < 0.3 else (0, 1, 2, -1)),
        "float": lambda: rng.choice(FLOATS),
        "bool": lambda: rng.random() < 0.5,
        "str": lambda: rng.choice(TEXTS),
        "Generator": lambda: None,
    }
    return makers[kind]()


def fitting_terms(arguments: dict[str, Any], rng: random.Random) -> None:
    """Places and terms that are as long as each other, half of the time: else no call passes the first check."""
    if "places" not in arguments or rng.random() < 0.5:
        return
    count = len(arguments["tensors"])
    arguments["places"] = [n for i in range(count) for n in (i, -1, -1, 0)]
    arguments["terms"] = [
        n
        for _ in range(count)
        for n in (rng.choice((0.0, 1.0, 2.0, 3.0, 4.0, 5.0)), 1.0, 0.0, 1.0, 0.0)
    ]
    if "wanted" in arguments:
        arguments["wanted"] = list(range(count))


def one(operator: Any, rng: random.Random, found: Found) -> bool:
    """Whether the call went through."""
    arguments = {a.name: value(str(a.type), rng) for a in operator._schema.arguments}
    fitting_terms(arguments, rng)
    found.cases += 1
    try:
        outputs = operator(**arguments)
        for x in torch.utils._pytree.tree_leaves(outputs):
            if isinstance(x, Tensor) and x.requires_grad and x.numel():
                x.sum().backward(retain_graph=True)
    except (RuntimeError, ValueError, TypeError, NotImplementedError, IndexError) as error:
        if "INTERNAL ASSERT" in str(error):
            found.failures.append(f"{operator}: {str(error).splitlines()[0]}")
        return False
    return True


def run(share: float) -> Found:
    found, passed = Found(), 0
    if _backend.EXTENSION is None:
        found.failures.append(f"the extension is not there: {_backend.REASON}")
        return found
    rng = random.Random(0)
    names = [
        n.split("::")[1]
        for n in torch._C._dispatch_get_all_op_names()
        if n.startswith("gankernels::")
    ]
    operators = [
        getattr(torch.ops.gankernels, n).default for n in sorted(set(names)) if "." not in n
    ]
    each = max(1, round(share * CALLS / len(operators)))
    before = 0
    for turn in range(2):  # what the second half adds to the memory in use is lost
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for operator in operators:
            passed += sum(one(operator, rng, found) for _ in range(each // 2 + turn))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if grown > 32:
        found.failures.append(f"{grown:.0f} MiB more memory after the second half of the calls")
    found.note = (
        f"{passed} of the calls were good ones; {grown:.0f} MiB more memory in the second half"
    )
    return found
