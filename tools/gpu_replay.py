"""Launches of the emulator, replayed on a GPU: the certificate of what was proven without one.

python tools/gpu_replay.py record FILE --backend cuda    without a GPU: inputs, and the emulator's results
python tools/gpu_replay.py check FILE                    with one: the same, bit for bit or within a bound

Recorded are operators' arguments and results for sm_90 on 132 multiprocessors, as an H100 has. Where a kernel
uses an approximating instruction (ex2, lg2, rcp: at most 2^-22 off, says the PTX manual), it is emulated twice
more with errors of up to that size, and a result may be off by four times what these changed, and two units in
the last place: a loss of those of what it is a difference of. Everything else must be equal.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

ARCH, MULTIPROCESSORS = 90, 132
NOISE = 2.0**-22
ALLOWED = 4  # times the largest change by the noise of two runs
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
SERVED_BY = {"cuda": "CUDA C++", "triton": "Triton"}
Call = tuple[str, str, tuple[Any, ...]]  # label, operator, arguments


# --- what is launched ----------------------------------------------------------------------------


def fused(name: str, case: Any, dtype: torch.dtype, reduction: str) -> Call:
    """Value and every gradient of a row of the operator table."""
    from gankernels.testing import OPERATORS

    operator = next(o for o in OPERATORS if o.name == name)
    arguments = operator.draw(case, dtype, reduction=reduction)
    overload = getattr(torch.ops.gankernels, operator.fused_operator).default
    label = f"{name} {case.label} {str(dtype).removeprefix('torch.')} {reduction}"
    return label, operator.fused_operator, operator.compiled_arguments(overload, arguments)


def divergences() -> Iterator[Call]:
    from gpu.cuda.cases import DIVERGENCES, LAYOUTS, LONG_LAYOUTS

    for i, (name, case) in enumerate(DIVERGENCES.values()):
        for j, shape in enumerate((*LAYOUTS.values(), *LONG_LAYOUTS.values())):
            for k, dtype in enumerate(DTYPES):
                if dtype == torch.float64 and (max(shape) > 512 or (i + j) % 3):
                    continue  # emulated one number at a time
                if max(shape) > 2000 and (i + j + k) % 3:
                    continue
                reduction = ("mean", "none", "sum")[(i + j + k) % 3]
                yield fused(name, replace(case, shape=shape), dtype, reduction)


def scalar_losses() -> Iterator[Call]:
    from gpu.cuda.cases import ELEMENTS

    from gankernels._scalar import SCALAR_LOSSES
    from gankernels.testing import Case

    for i, name in enumerate(SCALAR_LOSSES):
        for j, shape in enumerate(ELEMENTS.values()):
            for k, dtype in enumerate(DTYPES):
                if dtype != torch.float64 or (i + j) % 4 == 0:
                    yield fused(name, Case(shape), dtype, ("mean", "none")[(i + j + k) % 2])
    for shape in ((16385,), (20000,)):
        yield fused("relativistic_d_loss", Case(shape), torch.float32, "mean")


def many_rows() -> Iterator[Call]:
    """Several blocks a batch, each of which takes several rows."""
    from gankernels.testing import Case

    yield fused("realness_d_loss", Case((1700, 20), second_batch=1000), torch.float32, "mean")
    yield fused("realness_d_loss", Case((300, 64)), torch.bfloat16, "mean")


def layers() -> Iterator[Call]:
    from gankernels.reference import accumulation_dtype

    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        statistics = torch.randn(6, 10, 3).to(dtype)
        noise = torch.randn(6, 5, 3).to(accumulation_dtype(dtype))
        gradient = torch.randn(6, 5, 3).to(dtype)
        yield f"resample_forward {name}", "resample_forward", (statistics, noise, 1)
        saved = gradient if dtype in (torch.float32, torch.float64) else noise
        yield f"resample_backward {name}", "resample_backward", (gradient, statistics, saved, 1)
        first, second = torch.randn(12, 20, 3).to(dtype), torch.randn(9, 20, 3).to(dtype)
        scalar, rows = torch.tensor(0.3), torch.randn(12, 3)
        yield (
            f"scale_gradients {name}",
            "scale_gradients",
            (first, second, scalar, 1, 4, -1),
        )
        yield f"scale_gradient {name}", "scale_gradient", (first, rows, 1, -1)
        for operator in ("scale_terms", "scale_terms_"):
            for factor in (0.3, 1.0):
                factors = [torch.tensor(factor)] * 2
                yield f"{operator} {factor} {name}", operator, ([first, second], factors, [4, -1])


def calls() -> Iterator[Call]:
    torch.manual_seed(0)
    for family in (divergences, scalar_losses, many_rows, layers):
        yield from family()


FEW = 40  # of the calls one in so many, for a trial


# --- without a GPU -------------------------------------------------------------------------------


@contextlib.contextmanager
def emulated(
    backend: str, noise: float, seed: int
) -> Iterator[tuple[Callable[..., Any], list[Any]]]:
    """A way to run an operator on CPU tensors in the emulator, and the launches that it made."""
    options = {"approx_noise": noise, "seed": seed} if noise else {}
    if backend == "cuda":
        from gpu.cuda import emulated as cuda

        with cuda.launches(ARCH, multiprocessors=MULTIPROCESSORS, **options) as found:
            yield cuda.launch, found
        return
    from gankernels.triton import operators as launchers
    from tools.ptxsim import triton_driver

    triton_driver.install(ARCH, **options)
    with triton_driver.recorded() as found:
        yield lambda name, *a: getattr(launchers, name.removesuffix("_value_and_grad"))(*a), found


def watch_memory(backend: str) -> None:
    """From here on the emulator knows where each tensor's memory ends; Triton's tensors say so themselves."""
    if backend == "cuda":
        from gpu.cuda import emulated as cuda

        cuda.library()


def results(outputs: Any) -> list[Tensor]:
    return [x for x in tree_leaves(outputs) if isinstance(x, Tensor)]


def outcome(run: Callable[..., Any], operator: str, arguments: tuple[Any, ...]) -> list[Tensor]:
    """An operator's results; of one in place, what it wrote into copies."""
    if not operator.endswith("_"):
        return results(run(operator, *arguments))
    written = [x.clone() for x in arguments[0]]
    run(operator, written, *arguments[1:])
    return written


def approximates(launched: list[Any]) -> bool:
    """Whether a launch's kernel has an instruction whose result is within an error, not to the last bit."""
    return any("approx" in ins.mods for x in launched for ins in x.result.kernel.code)


def recorded(backend: str, call: Call) -> tuple[Any, ...]:
    """The call, its results, by how much noise moved each, and whether there was any to move them."""
    label, operator, arguments = call
    with emulated(backend, 0.0, 0) as (run, launched):
        exact = [t.clone() for t in outcome(run, operator, arguments)]
        approximate = approximates(launched)
    bounds = [0.0] * len(exact)
    for seed in (1, 2) if approximate else ():
        with emulated(backend, NOISE, seed) as (run, _):
            noisy = outcome(run, operator, arguments)
        bounds = [max(b, deviation(x, y)) for b, x, y in zip(bounds, noisy, exact, strict=True)]
    return label, operator, arguments, exact, bounds, approximate


def record(path: Path, backend: str, step: int = 1) -> None:
    watch_memory(backend)
    found = [recorded(backend, call) for call in itertools.islice(calls(), 0, None, step)]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    torch.save({"backend": backend, "arch": ARCH, "calls": found}, temporary)
    os.replace(temporary, path)
    print(f"{path}: {len(found)} calls, {path.stat().st_size / 2**20:.1f} MiB")


# --- with one ------------------------------------------------------------------------------------


def deviation(a: Tensor, b: Tensor) -> float:
    """The largest difference of finite numbers; infinite where others differ."""
    if not a.numel():
        return 0.0
    x, y = a.double(), b.double()
    if not torch.equal(x.isfinite(), y.isfinite()):
        return float("inf")
    rest = ~x.isfinite()
    if not torch.equal(x[rest].nan_to_num(nan=7.0), y[rest].nan_to_num(nan=7.0)):
        return float("inf")
    return float((x - y)[~rest].abs().max()) if (~rest).any() else 0.0


def last_place(x: Tensor, least: float = 0.0) -> float:
    """A unit in the last place of its largest number, taken for no smaller than ``least``."""
    finite = x.double()[x.isfinite()].abs()
    return max(float(finite.max()), least) * torch.finfo(x.dtype).eps if finite.numel() else 0.0


def size_of_terms(arguments: tuple[Any, ...]) -> float:
    """What a loss is a difference of is as large as its logits' spread and the logarithm of their number."""
    floats = [t.double() for t in results(arguments) if t.is_floating_point()]
    finite = [t[t.isfinite()] for t in floats]
    sizes = [float(t.max() - t.min()) + math.log(t.numel()) for t in finite if t.numel()]
    return max(sizes, default=0.0)


def on_gpu(argument: Any) -> Any:
    """The same view of the same memory: as aligned, as far apart."""
    if isinstance(argument, list) and argument and isinstance(argument[0], Tensor):
        return [on_gpu(x) for x in argument]
    if not isinstance(argument, Tensor):
        return argument
    storage = argument.untyped_storage()
    memory = torch.empty(storage.nbytes(), dtype=torch.uint8, device="cuda")
    raw = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,))
    memory.copy_(raw)
    typed = torch.empty(0, dtype=argument.dtype, device="cuda")
    at = argument.storage_offset(), argument.shape, argument.stride()
    return typed.set_(memory.untyped_storage(), *at)


def compared(
    got: list[Tensor],
    exact: list[Tensor],
    bounds: list[float],
    approximate: bool,
    terms: float = 0.0,
) -> dict[str, Any]:
    """``equal``, ``within`` or ``differs``, and by how much of what is allowed.

    Args:
        terms: The size of what the first result, the loss, is a difference of.
    """
    share, off = 0.0, 0.0
    for i, (a, b, bound) in enumerate(zip(got, exact, bounds, strict=True)):
        a = a.cpu()
        if a.shape != b.shape or a.dtype != b.dtype:
            return {
                "verdict": "differs",
                "off": f"{a.dtype}{list(a.shape)}, not {b.dtype}{list(b.shape)}",
            }
        off = max(off, difference := deviation(a, b))
        if not difference:
            continue
        # A few rows' loss may round to the same number with every noise, and to its neighbour on the device.
        least = terms if i == 0 else 0.0
        allowed = ALLOWED * bound + 2 * last_place(b, least) if approximate else 0.0
        share = max(share, difference / allowed if allowed else float("inf"))
    verdict = "equal" if not off else "within" if share <= 1 else "differs"
    return {"verdict": verdict, "off": off, "of_allowed": round(share, 3)}


def on_device(operator: str, arguments: tuple[Any, ...]) -> list[Tensor]:
    def run(name: str, *given: Any) -> Any:
        return getattr(torch.ops.gankernels, name).default(*given)

    got = outcome(run, operator, tuple(map(on_gpu, arguments)))
    torch.cuda.synchronize()
    return got


def in_emulator(backend: str, operator: str, arguments: tuple[Any, ...]) -> list[Tensor]:
    with emulated(backend, 0.0, 0) as (run, _):
        return outcome(run, operator, arguments)


def check(path: Path, again: bool) -> dict[str, Any]:
    import gankernels as gk

    backend = torch.load(path, weights_only=True)["backend"]
    if again:
        watch_memory(backend)
    saved = torch.load(path, weights_only=True)
    if not again and (serving := gk.build_info()["backends"]["cuda"]) != SERVED_BY[backend]:
        raise SystemExit(
            f"{path} was recorded for {SERVED_BY[backend]}, but {serving} serves the GPU"
        )
    run = functools.partial(in_emulator, backend) if again else on_device
    rows = []
    for label, operator, arguments, exact, bounds, approximate in saved["calls"]:
        try:
            terms = size_of_terms(arguments)
            outcome = compared(run(operator, arguments), exact, bounds, approximate, terms)
        except RuntimeError as error:
            outcome = {"verdict": "failed", "off": str(error).splitlines()[0][:300]}
        rows.append({"call": label, "operator": operator, **outcome})
    count = {
        v: sum(r["verdict"] == v for r in rows) for v in ("equal", "within", "differs", "failed")
    }
    return {
        "backend": backend,
        "replayed_on": "the emulator" if again else torch.cuda.get_device_name(),
        "recorded_for": f"sm_{saved['arch']}, {MULTIPROCESSORS} multiprocessors",
        **count,
        "largest_share_of_allowed": max(r.get("of_allowed", 0) for r in rows),
        "not_equal": [r for r in rows if r["verdict"] != "equal"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("record", "check"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--backend", choices=("cuda", "triton"), default="cuda")
    parser.add_argument("--json", type=Path, help="where to write what was found")
    parser.add_argument("--few", action="store_true", help="record a few of the calls")
    parser.add_argument("--emulated", action="store_true", help="check in the emulator once more")
    options = parser.parse_args()
    if options.what == "record":
        record(options.file, options.backend, FEW if options.few else 1)
        return
    found = check(options.file, options.emulated)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    for row in found["not_equal"]:
        if row["verdict"] != "within":
            print(row)
    print({k: v for k, v in found.items() if k != "not_equal"})
    if found["differs"] or found["failed"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
