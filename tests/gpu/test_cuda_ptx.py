"""nvcc's own PTX of every CUDA kernel, launched by its own launcher and run in the emulator, against float64."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton", minversion="3.4", reason="the emulation needs triton")

from gankernels._scalar import SCALAR_LOSSES
from gankernels._scalar_run import _LINEAR, terms_of
from gankernels.testing import Case, compare, differentiate
from gpu.cuda import build, cases, emulated
from gpu.cuda.cases import (
    DIVERGENCES,
    ELEMENTS,
    LAYOUTS,
    LONG_LAYOUTS,
    ROWS,
    Problem,
)
from tools.ptxsim import toolchain

pytestmark = [
    pytest.mark.emulated,
    pytest.mark.skipif(emulated.skip_reason is not None, reason=str(emulated.skip_reason)),
    pytest.mark.compiled,
]


@pytest.fixture(autouse=True)
def _recorded() -> None:
    """From here on it is known where each tensor's memory ends."""
    emulated.library()


architectures = pytest.mark.parametrize("arch", toolchain.ARCHITECTURES)
# A warp at a time takes five times as long.
SCHEDULES = ("lockstep", "warps", "lockstep", "warps_reversed")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# float64 is emulated one number at a time: fewer of its kernels are run on every architecture.
SLOW = torch.float64

RESAMPLED = [(5, 7), (3, 32)]
REDUCED = ["anchors", "softmax and anchor"]

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=cases.dtype_name)


def program_of(arch: int, dtype: torch.dtype) -> int:
    """The architecture whose PTX is run for this one: sm_80's differs in conversions of bfloat16 alone."""
    return 90 if arch == 80 and dtype != torch.bfloat16 else arch


def architectures_of(program: int, dtype: torch.dtype) -> list[int]:
    return [a for a in toolchain.ARCHITECTURES if program_of(a, dtype) == program]


every_program = pytest.mark.parametrize(
    ("dtype", "arch"),
    [(d, a) for d in DTYPES for a in toolchain.ARCHITECTURES if program_of(a, d) == a],
    ids=lambda x: cases.dtype_name(x) if isinstance(x, torch.dtype) else str(x),
)


def schedule_of(*words: object) -> str:
    """One of the schedules, spread over the cases."""
    return SCHEDULES[sum(map(len, map(str, words))) % len(SCHEDULES)]


def run(problem: Problem, dtype: torch.dtype, arch: int) -> list[emulated.Launch]:
    """Value and gradients of an operator of the table, within its tolerance; returns the launches."""
    operator, arguments, names = problem.draw(dtype)
    schedule = schedule_of(problem.name, problem.case.label, dtype, arch)
    with emulated.launches(arch, schedule=schedule) as found, emulated.Redirected():
        compare(operator, arguments, names)
    assert found
    return found


def once(problems: Iterable[Problem]) -> list[Problem]:
    found: list[Problem] = []
    for problem in problems:
        if problem not in found:
            found.append(problem)
    return found


def divergences(layout: str, dtype: torch.dtype, arch: int) -> Iterator[Problem]:
    for i, (what, (name, case)) in enumerate(DIVERGENCES.items()):
        if dtype == SLOW and (i + arch // 10) % 3:  # a third of them on each architecture
            continue
        yield Problem(name, replace(case, shape=LAYOUTS[layout]), what)


def long_rows(layout: str, dtype: torch.dtype, arch: int) -> Iterator[Problem]:
    is_split, is_packed = "split" in layout, "packed" in layout
    # Rows of one batch: two batches would be too many rows for the few multiprocessors.
    kinds = ("target", "softmax and anchor", "anchors")[: 2 if is_split else 3]
    number = list(LONG_LAYOUTS).index(layout) + DTYPES.index(dtype) + arch // 10
    shape = LONG_LAYOUTS[layout]
    if dtype == SLOW and not is_split:
        # The longest row in registers is a quarter as long, and rounded up to an odd or an aligned one.
        shape = (1, shape[1] // 4 + 4 + shape[1] % 2)
    # Mixtures are neither packed nor split.
    mixed = ["mixture"] if arch == 90 and not (is_packed or is_split) else []
    for what in (kinds[number % len(kinds)], *mixed):
        name, case = DIVERGENCES[what]
        yield Problem(name, replace(case, shape=shape), what)


def scalar_losses(reduction: str | None, dtype: torch.dtype, arch: int) -> Iterator[Problem]:
    # A block for all logits, and several.
    yield Problem("logistic_d_loss", Case(shape=(8200,)), reduction=reduction)
    for i, name in enumerate(SCALAR_LOSSES):
        if reduction == "none" and name in _LINEAR:
            continue  # nothing to launch
        shapes = [(37,), (40,)] if dtype == SLOW else list(ELEMENTS.values())
        yield Problem(name, Case(shape=shapes[(i + arch // 10) % 2]), reduction=reduction)


def reduced(what: str, reduction: str, dtype: torch.dtype) -> Problem:
    name, case = DIVERGENCES[what]
    shape = (3, 5, 3) if dtype == torch.float32 else (7, 5)
    return Problem(name, replace(case, shape=shape), reduction=reduction)


def test_one_program_serves_two_architectures() -> None:
    """But for bfloat16, which the kernels of one logit may meet beside any other dtype."""
    checked = 0
    for source in (
        s for s in build.KERNELS if s.stem not in ("scalar_kernels", "divergence_dispatch")
    ):
        own, other = (emulated.entries(source, arch)[1] for arch in (80, 90))
        assert own.keys() == other.keys()
        for entry in (e for e in own if "bfloat16" not in e):
            # Behind a file's last kernel stand its tables for debuggers.
            texts = {of[entry].split(".section")[0] for of in (own, other)}
            assert len(texts) == 1, emulated.demangled(entry)
            checked += 1
    assert checked > 50


@every_program
@pytest.mark.parametrize("layout", LAYOUTS)
def test_divergences(layout: str, dtype: torch.dtype, arch: int) -> None:
    answered = architectures_of(arch, dtype)
    for problem in once(p for a in answered for p in divergences(layout, dtype, a)):
        run(problem, dtype, arch)


@every_program
@pytest.mark.parametrize("layout", LONG_LAYOUTS)
def test_long_rows(layout: str, dtype: torch.dtype, arch: int) -> None:
    answered = architectures_of(arch, dtype)
    for problem in once(p for a in answered for p in long_rows(layout, dtype, a)):
        run(problem, dtype, arch)


@architectures
@every_dtype
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_scalar_losses(reduction: str, dtype: torch.dtype, arch: int) -> None:
    for problem in scalar_losses(reduction, dtype, arch):
        run(problem, dtype, arch)


@every_program
@pytest.mark.parametrize("shape", RESAMPLED, ids=str)
def test_resampling(shape: tuple[int, int], dtype: torch.dtype, arch: int) -> None:
    found = run(Problem("resample_logits", Case(shape=shape)), dtype, arch)
    assert [re.sub("<.*", "", launch.kernel) for launch in found] == [
        "resample_kernel",
        "resample_backward_kernel",
    ]


@pytest.mark.parametrize("dtype", DTYPES, ids=cases.dtype_name)
def test_no_kernel_is_left_out(dtype: torch.dtype) -> None:
    """The problems above launch every kernel that there is, on one architecture or another."""
    problems: list[Problem] = [Problem("resample_logits", Case(shape=shape)) for shape in RESAMPLED]
    problems += [reduced(what, "none", dtype) for what in REDUCED]
    problems += [Problem("logistic_d_loss", Case(shape=(37,)), reduction="none")]
    # Three launches from here on; their results are tested with the launches.
    problems += [Problem("relativistic_d_loss", Case(shape=(n,))) for n in (16385, 16400)]
    for arch in toolchain.ARCHITECTURES:
        for layout in LAYOUTS:
            problems += divergences(layout, dtype, arch)
        problems += (p for layout in LONG_LAYOUTS for p in long_rows(layout, dtype, arch))
        problems += scalar_losses(None, dtype, arch)
    launched: set[str] = set()

    @emulated.CALLBACK
    def note(kernel: bytes, *extents: object) -> int:
        launched.add(kernel.decode())
        return 0

    emulated.library().gk_set_callback(note)
    try:
        for problem in problems:
            operator, arguments, names = problem.draw(dtype)
            with emulated.Redirected():
                differentiate(operator.functional, arguments, names)
    finally:
        emulated.library().gk_set_callback(emulated._callback)
    mangled = {
        "float32": "If",
        "float64": "Id",
        "float16": "I6__half",
        "bfloat16": "I13__nv_bfloat16",
    }
    of_dtype = f"kernel{mangled[cases.dtype_name(dtype)]}"
    there = {e for s in build.KERNELS for e in build.report(s, 90) if of_dtype in e}
    assert len(there) > 25
    missing = there - launched
    assert not missing, [emulated.demangled(entry) for entry in missing]


@every_dtype
@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.parametrize("what", REDUCED)
def test_reductions(what: str, reduction: str, dtype: torch.dtype) -> None:
    """Both batches' losses of a row, added by the thread that found them; their gradients per row."""
    run(reduced(what, reduction, dtype), dtype, 90)


@pytest.mark.parametrize("second", [1, 9])
def test_batches_of_different_size(second: int) -> None:
    problem = Problem("realness_d_loss", Case(shape=(6, 20), second_batch=second))
    run(problem, torch.float32, 90)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=cases.dtype_name)
@pytest.mark.parametrize("offset", [1, 2, 8])
def test_odd_offsets(offset: int, dtype: torch.dtype) -> None:
    """Rows that begin anywhere in memory: 16 bytes at a time only where they may."""
    memory = torch.randn(7 * 64 + offset).to(dtype)
    logits = memory[offset:].view(7, 64)
    target = torch.softmax(torch.randn(64), 0)
    with emulated.launches(90) as found:
        loss, grad, _ = emulated.operator("softmax_kl_value_and_grad")(
            logits, target, 1, 1, True, False, True, 1.0
        )
    aligned = offset * memory.element_size() % 16 == 0
    bits = found[0].result.stats
    assert (bits["global_load_128b_threads"] > 0) == aligned
    exact = torch.ops.gankernels.softmax_kl_value_and_grad(
        logits.double(), target.double(), 1, 1, True, False, True, 1.0
    )
    torch.testing.assert_close(loss.double(), exact[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad.double(), exact[1], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("strides", [(640, 2), (40, 1), (1, 64), (3, 200)], ids=str)
def test_odd_strides(strides: tuple[int, int]) -> None:
    memory = torch.randn(8000)
    logits = memory.as_strided((9, 20), strides)
    target = torch.softmax(torch.randn(20), 0)
    with emulated.launches(90):
        loss, grad, _ = emulated.operator("softmax_kl_value_and_grad")(
            logits, target, 1, 2, True, False, True, 1.0
        )
    exact = torch.ops.gankernels.softmax_kl_value_and_grad(
        logits.double(), target.double(), 1, 2, True, False, True, 1.0
    )
    torch.testing.assert_close(loss.double(), exact[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad.double(), exact[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("arch", [90, 100])  # and 80, whose program is that of 90
def test_extremes(arch: int) -> None:
    """-inf, +inf, NaN and +-1e4 among the logits, in registers and streamed."""
    for classes in (8, 4099):
        logits = torch.randn(6, classes)
        logits[0, :3] = torch.tensor([1e4, -1e4, 0])
        logits[1, 1] = -torch.inf
        logits[2, 2] = torch.inf
        logits[3, 1] = torch.nan
        logits[4] = -torch.inf
        anchor = torch.zeros(classes)
        anchor[0] = 0.75
        other = logits.flip(0).contiguous()
        calls = {
            "softmax_kl_value_and_grad": (logits, anchor, 1, 0, True, False, True, 1.0),
            "softmax_kl_logits_value_and_grad": (other, logits, 1, 0, True, True, True, 1.0),
            "js_divergence_value_and_grad": (other, logits, 0.3, 1, 0, True, True, True, 1.0),
        }
        for name, arguments in calls.items():
            with emulated.launches(arch):
                got = emulated.operator(name)(*arguments)
            exact = getattr(torch.ops.gankernels, name)(
                *(x.double() if isinstance(x, torch.Tensor) else x for x in arguments)
            )
            for a, b in zip(got, exact, strict=True):
                assert torch.equal(a.isfinite(), b.isfinite()), (name, classes)
                torch.testing.assert_close(
                    a.double(), b, rtol=1e-4, atol=1e-5, equal_nan=True, msg=f"{name} {classes}"
                )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=cases.dtype_name)
def test_sixteen_bits_use_the_special_function_unit_and_lose_nothing(dtype: torch.dtype) -> None:
    """The losses of 16-bit logits are those of their exact values: small ones, subnormal targets."""
    logits = torch.linspace(-15, 15, 480).to(dtype)
    terms = terms_of("nonsaturating_g_loss", None, None)
    arguments = ([logits], "f", (0, -1, -1, 0), terms, 1.0, 0, (0,), True, 1.0)
    with emulated.launches(90) as found:
        (loss,), (grad,) = emulated.operator("scalar_loss_value_and_grad")(*arguments)
    assert "ex2.approx.ftz" in emulated.kernel_text(found[0].entry, 90)
    exact = torch.nn.functional.softplus(-logits.double())
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=0)
    slope = -torch.sigmoid(-logits.double())
    torch.testing.assert_close(grad.double(), slope, rtol=torch.finfo(dtype).eps, atol=1e-7)

    target = torch.tensor([0.25, 1e-40, 0.0, 0.75] * 4)
    with emulated.launches(90):
        loss, *_ = emulated.operator("softmax_kl_value_and_grad")(
            logits.view(-1, 16), target, 1, 0, True, False, True, 1.0
        )
    log_q = torch.log_softmax(logits.double().view(-1, 16), 1)
    exact = torch.xlogy(target.double(), target.double()).sum() - (target.double() * log_q).sum(1)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=1e-6)


def test_approximate_instructions_may_err() -> None:
    """Two ulp in each of the hardware's approximations move nothing beyond the tolerance."""
    operator = ROWS["realness_g_loss"]
    arguments = operator.draw(Case(shape=(9, 64), options={"objective": 2}))
    with emulated.launches(90, approx_noise=2**-22), emulated.Redirected():
        compare(operator, arguments, operator.inputs(arguments))


@architectures
def test_no_kernel_spills(arch: int) -> None:
    for source in build.KERNELS:
        for entry, report in build.report(source, arch).items():
            spilled = report["spill_stores"] + report["spill_loads"] + report["stack"]
            assert spilled == 0, f"{emulated.demangled(entry)}: {spilled} bytes"
