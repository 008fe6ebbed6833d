"""Times the losses on a GPU and prints a table; `--save` keeps it in benchmarks/results/gpu.json and .csv.

python -m benchmarks.gpu                  every backend of this machine, the sizes of `make gpu-bench`
python -m benchmarks.gpu --save           the same, kept

Medians of triton.testing.do_bench (device events), which empties the L2 cache before every call; `replay_us` is
the same call replayed from a CUDA graph, with a warm cache and without Python. A column beside the times gives
the rate at which the bytes that a loss has to move (logits read, gradients written) moved, and its share of the
rate of a copy on the same device. The contenders are the formulas of benchmarks/formulas.py, as PyTorch runs them
and compiled; each is checked against ours before it is timed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
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


def _check(ours: Callable[[], Any], theirs: Callable[[], Any]) -> None:
    """Gradients agree before anything is timed; a rival's own rounding sets the tolerance."""
    for a, b in zip(ours(), theirs(), strict=True):
        scale = float(b.abs().max())
        difference = float((a.float() - b.float()).abs().max())
        if difference > 16 * torch.finfo(a.dtype).eps * scale:
            raise AssertionError(f"gradients differ by {difference / scale:.2e} of their maximum")


def _case(
    operator: str,
    dtype: str,
    logits: tuple[Tensor, Tensor],
    ours: Callable[..., Tensor],
    rivals: dict[str, Callable[..., Tensor]],
    checked: str,
    anchors: Sequence[Tensor] = (),
) -> Case:
    fused = gk.value_and_grad(ours)
    arguments = (*logits, *anchors)
    contenders = losses.forward_backward("gankernels", partial(ours, *arguments), logits)
    contenders["gankernels value_and_grad"] = lambda: fused(*arguments)
    for name, formula in rivals.items():
        loss = partial(formula, *arguments)
        contenders |= losses.forward_backward(name, loss, logits, compiled=True)
    _check(contenders["gankernels"], contenders[checked])
    # Logits read, gradients written.
    moved = 2 * sum(x.numel() * x.element_size() for x in logits)
    return Case(operator, tuple(logits[0].shape), dtype, moved, contenders)


def realness_d(n: int, k: int, dtype: str, device: str = "cuda") -> Case:
    logits = losses.two_batches((n, k), losses.DTYPES[dtype], device)
    # Full support: with an empty bin the formulas with an epsilon would compute something else.
    anchors = [gk.anchors.gaussian(k, mean, 1, -2, 2).to(logits[0]) for mean in (1, -1)]
    rivals = formulas.REALNESS_D | formulas.installed_realness_d()
    loss = gk.realness_d_loss
    return _case("realness_d_loss", dtype, logits, loss, rivals, "F.kl_div", anchors)


def logistic_d(shape: tuple[int, ...], dtype: str, device: str = "cuda") -> Case:
    logits = losses.two_batches(shape, losses.DTYPES[dtype], device)
    loss, rivals = gk.logistic_d_loss, formulas.LOGISTIC_D
    return _case("logistic_d_loss", dtype, logits, loss, rivals, "BCE with logits")


CASES: list[Callable[[], Case]] = [
    *(
        (lambda n=n, k=k, d=d: realness_d(n, k, d))
        for d in DTYPES
        for n, k in (
            (128, 20),
            (128, 51),
            (4096, 20),
            (4096, 64),
            (8192, 1024),
            (8192, 4096),
            (1024, 32768),
        )
    ),
    *((lambda s=s, d=d: logistic_d(s, d)) for d in DTYPES for s in ((128,), (64, 1, 30, 30))),
    lambda: logistic_d((4096, 4096), "bf16"),
]


def median_us(call: Callable[[], object]) -> float:
    """Microseconds of a call on the device with a cold L2 cache."""
    from triton.testing import do_bench

    return float(do_bench(call, warmup=25, rep=200, return_mode="median")) * 1e3


def replay_us(call: Callable[[], object]) -> float | None:
    """Microseconds of a call replayed from a CUDA graph, free of Python; None where it cannot be captured."""
    from triton.testing import do_bench_cudagraph

    try:
        return round(do_bench_cudagraph(call, rep=200, return_mode="median") * 1e3, 2)
    except RuntimeError:
        torch.cuda.synchronize()
        return None


def copy_rate() -> float:
    """Bytes per microsecond, read and written, of a copy on the device."""
    source = torch.empty(COPIED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * COPIED / median_us(lambda: target.copy_(source))


def rows_of(case: Case, rate: float) -> list[dict[str, Any]]:
    """One row per contender."""
    times = {name: median_us(call) for name, call in case.contenders.items()}
    # A compiled function is replayed by torch.compile's own graphs, if at all.
    replays = {
        name: None if name.endswith("compiled") else replay_us(call)
        for name, call in case.contenders.items()
    }
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
    parser.add_argument("--backend", choices=BACKENDS, help="this one alone; by default all")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit(f"no CUDA device: torch {torch.__version__} sees none")
    if options.backend and os.environ.get("GANKERNELS_BACKEND") != options.backend:
        _run_again(options.backend, options.save)
        return
    rate = copy_rate()
    header = environment(rate)
    print("  ".join(f"{key}={value}" for key, value in header.items()))
    rows: list[dict[str, Any]] = []
    for make_case in CASES:
        torch._dynamo.reset()  # its cache of compiled shapes is bounded
        rows += (measured := rows_of(make_case(), rate))
        print_rows(measured)
    if options.save:
        name = "cuda" if header["backend"] == "CUDA C++" else "triton"
        results.save(f"gpu-{name}", header, rows)
    for backend in _others(options):
        _run_again(backend, options.save)


def _run_again(backend: str, save: bool) -> None:
    """In a process of its own: a backend is chosen when the package is imported."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--backend", backend]
    environment = {**os.environ, "GANKERNELS_BACKEND": backend}
    subprocess.run([*command, *(["--save"] if save else [])], check=True, env=environment)


if __name__ == "__main__":
    main()
