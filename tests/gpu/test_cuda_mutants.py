"""The emulator catches what could be wrong with these kernels: each PTX with one thing broken must fail."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

pytest.importorskip("triton", minversion="3.4", reason="the emulation needs triton")

from gpu.cuda import emulated
from tools.ptxsim.simulator import KernelFault

pytestmark = [
    pytest.mark.emulated,
    pytest.mark.skipif(emulated.skip_reason is not None, reason=str(emulated.skip_reason)),
    pytest.mark.compiled,
]


@pytest.fixture(autouse=True)
def _recorded() -> None:
    """From here on it is known where each tensor's memory ends."""
    emulated.library()


# Shape of the logits by the kernel that it needs.
SHAPES = {
    "one warp": (40, 64),
    "block": (5, 600),
    "narrow": (33, 5),
    "side by side": (24, 40, 9),
    "split": (1, 24584),
}


def remove(pattern: str, which: int) -> Callable[[str], str]:
    return replace(pattern, "", which)


def replace(pattern: str, by: str, which: int) -> Callable[[str], str]:
    """Changes the ``which``-th match; fails where there is none, so that no mutant is the original."""

    def mutate(ptx: str) -> str:
        found = list(re.finditer(pattern, ptx))
        match = found[which]
        return ptx[: match.start()] + match.expand(by) + ptx[match.end() :]

    return mutate


def caught(shape: tuple[int, ...], mutate: Callable[[str], str] | None, scale: float = 1.0) -> str:
    """Empty, or what told that the kernel is wrong."""
    torch.manual_seed(0)
    logits, other = scale * torch.randn(shape), scale * torch.randn(shape)
    anchor = torch.softmax(torch.randn(shape[1]), 0)
    arguments = (other, logits, None, anchor, 2, 1, 1, True, True, True, 1.0)
    exact = torch.ops.gankernels.realness_g_loss_value_and_grad(
        *(x.double() if isinstance(x, torch.Tensor) else x for x in arguments)
    )
    try:
        with emulated.launches(90, mutate=mutate, max_steps=300_000):
            got = emulated.operator("realness_g_loss_value_and_grad")(*arguments)
    except KernelFault as fault:
        return str(fault)
    for a, b in zip(got, exact, strict=True):
        if not torch.allclose(a.double(), b, rtol=1e-4, atol=1e-6):
            return "wrong result"
    return ""


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_kernel_itself_is_right(shape: tuple[int, ...]) -> None:
    assert caught(shape, None) == ""


def barriers(shape: tuple[int, ...]) -> int:
    """How many barriers the kernel for this shape has."""
    counts = []

    def count(ptx: str) -> str:
        counts.append(len(re.findall(r"bar\.sync", ptx)))
        return ptx

    caught(shape, count)
    return counts[0]


@pytest.mark.parametrize("name", ["block", "side by side"])
def test_missing_barriers(name: str) -> None:
    """Barriers of paths that this problem does not take guard nothing here; the others do."""
    shape = SHAPES[name]
    number = barriers(shape)
    found = [caught(shape, remove(r"bar\.sync\s+0;", i)) for i in range(number)]
    noticed = [text for text in found if text]
    assert any("race" in text or "uninitialised" in text for text in noticed)
    assert len(noticed) >= number // 2, found


SHUFFLE = r"(shfl\.sync\.bfly\.b32[^;]*?), ([^,;]+), ([^,;]+), -1;"
TICKET = r"atom\.global\.inc\.u32\s+(%r\d+), (\[%rd\d+\]), (%r\d+);"
FENCE = r"(?:fence\.acq_rel\.gpu|fence\.sc\.gpu|membar\.gl);"
BOUND = r"setp\.ge\.s32(\s+%p\d+, %r\d+, %r\d+)"

MUTANTS: dict[str, tuple[str, Callable[[str], str]]] = {
    "sign of a difference": ("one warp", replace(r"sub\.(?:rn\.)?f32", "add.f32", 3)),
    "maximum for minimum": ("narrow", replace(r"max\.f32", "min.f32", 0)),
    "bound of the classes": ("narrow", lambda ptx: re.sub(BOUND, r"setp.gt.s32\1", ptx)),
    "partner in a butterfly": ("one warp", replace(SHUFFLE, r"\1, 0, \3, -1;", 0)),
    "mask of a shuffle": ("one warp", replace(SHUFFLE, r"\1, \2, \3, 65535;", 0)),
    "ticket that does not wrap": (
        "side by side",
        replace(TICKET, r"atom.global.add.u32 \1, \2, \3;", 0),
    ),
    "ticket without an atomic": (
        "side by side",
        replace(TICKET, r"st.global.u32 \2, \3; mov.u32 \1, \3;", 0),
    ),
    "which part of a row": (
        "split",
        replace(r"mov\.u32(\s+%r\d+), %ctaid\.x;", r"mov.u32\1, 0;", 0),
    ),
    "fences": ("side by side", lambda ptx: re.sub(FENCE, "", ptx)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants(mutant: str) -> None:
    name, mutate = MUTANTS[mutant]
    # Small logits may be shifted by anything before the exponential; large ones by their maximum only.
    scale = 60.0 if mutant == "maximum for minimum" else 1.0
    assert caught(SHAPES[name], None, scale) == ""
    assert caught(SHAPES[name], mutate, scale) != ""


def test_pointers_past_the_end() -> None:
    """A launcher that took the rows to be longer than they are reads past the memory."""
    message = caught(SHAPES["block"], replace(r"(ld\.global\.v4\.f32 [^;]*)\];", r"\1+16];", 0))
    assert message
