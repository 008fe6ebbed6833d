"""Times the losses on a GPU and prints a table; `--save` keeps it in benchmarks/results/gpu.json and .csv.

python -m benchmarks.gpu                  every backend of this machine, the sizes of `make gpu-bench`
python -m benchmarks.gpu --save           the same, kept
python -m benchmarks.gpu --quick          fewer sizes

Medians of triton.testing.do_bench (device events), which empties the L2 cache before every call; `replay_us` is
the same call replayed from a CUDA graph, with a warm cache and without Python. Rivals are timed beside the first
backend; another one has rows of its own kernels. A column beside the times gives
the rate at which the bytes that a loss has to move (logits read, gradients written) moved, and its share of the
rate of a copy on the same device. The contenders are the formulas of benchmarks/formulas.py, as PyTorch runs them
and compiled; each is checked against ours before it is timed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import gankernels as gk
from benchmarks import formulas, losses, results

BACKENDS = ("cuda", "triton")
DTYPES = ("fp32", "bf16")
COPIED = 1 << 28  # bytes of the copy that rates are compared with: far more than any L2 cache holds


@dataclass(frozen=True)
class Case:
    """One problem: what has to move, and who computes it."""

    operator: str
    shape: tuple[int, ...]
    dtype: str
    moved: int
    contenders: dict[str, Callable[[], object]]


def _case(
    operator: str,
    dtype: str,
    logits: tuple[Tensor, Tensor],
    ours: Callable[..., Tensor],
    rivals: dict[str, Callable[..., Tensor]],
    checked: str,
    anchors: Sequence[Tensor] = (),
    compiled: Container[str] | None = None,
) -> Case:
    """Ours and the rivals, each also compiled, or those of them that are named."""

    def with_anchors(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *x: formula(*x, *(a.to(x[0].dtype) for a in anchors))

    losses.check(with_anchors(ours), with_anchors(rivals[checked]), logits)
    fused = gk.value_and_grad(ours)
    arguments = (*logits, *anchors)
    contenders = losses.forward_backward("gankernels", partial(ours, *arguments), logits)
    contenders["gankernels value_and_grad"] = lambda: fused(*arguments)
    for name, formula in rivals.items():
        loss = partial(formula, *arguments)
        both = compiled is None or name in compiled
        contenders |= losses.forward_backward(name, loss, logits, compiled=both)
    # Logits read, gradients written.
    moved = 2 * sum(x.numel() * x.element_size() for x in logits)
    return Case(operator, tuple(logits[0].shape), dtype, moved, contenders)


def realness_d(
    n: int, k: int, dtype: str, device: str = "cuda", compiled: Container[str] | None = None
) -> Case:
    logits = losses.two_batches((n, k), losses.DTYPES[dtype], device)
    # Full support: with an empty bin the formulas with an epsilon would compute something else.
    anchors = [gk.anchors.gaussian(k, mean, 1, -2, 2).to(logits[0]) for mean in (1, -1)]
    rivals = formulas.REALNESS_D | (formulas.installed_realness_d() if device != "cpu" else {})
    loss = gk.realness_d_loss
    return _case("realness_d_loss", dtype, logits, loss, rivals, "F.kl_div", anchors, compiled)


def logistic_d(shape: tuple[int, ...], dtype: str, device: str = "cuda") -> Case:
    logits = losses.two_batches(shape, losses.DTYPES[dtype], device)
    loss, rivals = gk.logistic_d_loss, formulas.LOGISTIC_D
    return _case("logistic_d_loss", dtype, logits, loss, rivals, "BCE with logits")


def js_divergence(n: int, k: int, dtype: str, device: str = "cuda") -> Case:
    logits = losses.two_batches((n, k), losses.DTYPES[dtype], device)
    loss, rivals = gk.js_divergence, formulas.JS_DIVERGENCE
    return _case("js_divergence", dtype, logits, loss, rivals, "F.kl_div")


_ROWS = ((128, 20), (128, 51), (4096, 20), (4096, 64), (8192, 1024), (8192, 4096), (1024, 32768))
CASES: list[Callable[[], Case]] = [
    *(partial(realness_d, n, k, d) for d in DTYPES for n, k in (*_ROWS, (8, 262144))),
    *(partial(logistic_d, s, d) for d in DTYPES for s in ((128,), (64, 1, 30, 30))),
    partial(logistic_d, (4096, 4096), "bf16"),
    *(partial(js_divergence, n, k, "bf16") for n, k in _ROWS[4:]),
]
_FEW = ("article formula", "F.cross_entropy")  # whose compilation a quick run waits for
QUICK: list[Callable[[], Case]] = [
    *(partial(realness_d, n, k, "fp32", compiled=_FEW) for n, k in ((128, 20), (4096, 64))),
    *(partial(realness_d, n, k, "bf16", compiled=_FEW) for n, k in (*_ROWS[4:], (8, 262144))),
    partial(realness_d, 8192, 4096, "fp32", compiled=_FEW),
    partial(logistic_d, (128,), "fp32"),
    partial(logistic_d, (4096, 4096), "bf16"),
    *(partial(js_divergence, n, k, "bf16") for n, k in _ROWS[5:]),
]


def median_us(call: Callable[[], object]) -> float:
    """Microseconds of a call on the device with a cold L2 cache."""
    from triton.testing import do_bench

    return float(do_bench(call, warmup=25, rep=100, return_mode="median")) * 1e3


def replay_us(call: Callable[[], object]) -> float | None:
    """Microseconds of a call replayed from a CUDA graph, free of Python; None where it cannot be captured."""
    from triton.testing import do_bench_cudagraph

    try:
        return round(do_bench_cudagraph(call, rep=20, return_mode="median") * 1e3, 2)
    except RuntimeError:
        torch.cuda.synchronize()
        return None


def copy_rate() -> float:
    """Bytes per microsecond, read and written, of a copy on the device."""
    source = torch.empty(COPIED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * COPIED / median_us(lambda: target.copy_(source))


def rows_of(case: Case, rate: float, rivals: bool = True) -> list[dict[str, Any]]:
    """One row per contender."""
    timed = {n: c for n, c in case.contenders.items() if rivals or not losses.is_rival(n)}
    times = {name: median_us(call) for name, call in timed.items()}
    replays = {name: replay_us(call) for name, call in timed.items()}
    return [
        {
            "operator": case.operator,
            "shape": "x".join(map(str, case.shape)),
            "dtype": case.dtype,
            "contender": name,
            "median_us": round(us, 2),
            "replay_us": replays[name],
            "gb_per_s": round(case.moved / us / 1e3, 1),
            "share_of_copy": round(case.moved / us / rate, 3),
            "ratio_to_ours": round(us / times["gankernels"], 3),
        }
        for name, us in times.items()
    ]


def print_rows(rows: list[dict[str, Any]]) -> None:
    head = rows[0]
    print(f"\n{head['operator']} {head['shape']} {head['dtype']}, forward + backward")
    print(f"  {'':34}{'median us':>12}{'GB/s':>10}{'of a copy':>11}{'x ours':>9}")
    for row in rows:
        print(
            f"  {row['contender']:34}{row['median_us']:12.1f}{row['gb_per_s']:10.0f}"
            f"{row['share_of_copy']:11.0%}{row['ratio_to_ours']:9.2f}"
        )


def environment(rate: float) -> dict[str, Any]:
    return {
        **results.environment(torch.get_num_threads()),
        "command": " ".join(["python -m benchmarks.gpu", *sys.argv[1:]]),
        "gpu": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda or torch.version.hip,
        "backend": gk.build_info()["backends"]["cuda"],
        "copy_gb_per_s": round(rate / 1e3, 1),
    }


def _others(options: argparse.Namespace) -> Iterator[str]:
    """The backends beside the one of this process that can serve here: each needs one of its own."""
    served = gk.build_info()["backends"]["cuda"]
    if options.backend is None and served == "CUDA C++":
        yield "triton"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--save", action="store_true", help="keep the results")
    parser.add_argument("--quick", action="store_true", help="fewer sizes")
    parser.add_argument("--ours", action="store_true", help="leave the rivals out")
    parser.add_argument("--backend", choices=BACKENDS, help="this one alone; by default all")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit(f"no CUDA device: torch {torch.__version__} sees none")
    if options.backend and os.environ.get("GANKERNELS_BACKEND") != options.backend:
        _run_again(options.backend, options)
        return
    rate = copy_rate()
    header = environment(rate)
    print("  ".join(f"{key}={value}" for key, value in header.items()))
    rows: list[dict[str, Any]] = []
    for make_case in QUICK if options.quick else CASES:
        torch._dynamo.reset()  # its cache of compiled shapes is bounded
        rows += (measured := rows_of(make_case(), rate, rivals=not options.ours))
        print_rows(measured)
        if options.save:  # after every case: what was measured is kept, whatever comes
            name = "cuda" if header["backend"] == "CUDA C++" else "triton"
            results.save(f"gpu-{name}", header, rows)
    for backend in _others(options):
        options.ours = True
        _run_again(backend, options)


def _run_again(backend: str, options: argparse.Namespace) -> None:
    """In a process of its own: a backend is chosen when the package is imported."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--backend", backend]
    command += [f"--{flag}" for flag in ("save", "quick", "ours") if getattr(options, flag)]
    environment = {**os.environ, "GANKERNELS_BACKEND": backend}
    subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    main()
