"""The kernels that a user would pick instead of ours, counted as ours are: docs/results/gpu-peers.json.

    python -m tools.gpu_table peers   # needs nvcc, Triton and Liger, and no GPU: about ten minutes

Nobody's code is kept: Liger's kernels are those of the installed package, Inductor's are generated on the way.
"""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import torch
import triton

from benchmarks import formulas, results, tables
from tools.gpu_table import peers_inductor, peers_ours, table
from tools.gpu_table.cases import BF16, FP32
from tools.gpu_table.peers_check import LIGER, check
from tools.gpu_table.peers_counts import GPU, Launch, Problem, row
from tools.gpu_table.peers_page import RESULTS

REALNESS = [
    Problem("realness_d_loss", (4096, 20), FP32),
    Problem("realness_d_loss", (8192, 1024), BF16),
    Problem("realness_d_loss", (8192, 4096), BF16),
    Problem("realness_d_loss", (1024, 32768), BF16),
]
LOGISTIC = [Problem("logistic_d_loss", (1 << 20,), FP32)]
COUNTED = ("tools/gpu_table", "tools/ptxsim", "gankernels", "csrc/cuda", "benchmarks/formulas.py")


def contenders(problem: Problem) -> Iterator[tuple[str, list[Launch]]]:
    for name, ours in peers_ours.CONTENDERS.items():
        yield name, ours(problem)
    realness = problem.operator == "realness_d_loss"
    for name, formula in (formulas.REALNESS_D if realness else formulas.LOGISTIC_D).items():
        yield f"{name}, compiled", peers_inductor.run(formula, problem)[0]
    for name, peer in LIGER.items() if realness else ():
        yield name, peer(problem)[0]


def measured() -> Iterator[dict[str, Any]]:
    for problem in REALNESS + LOGISTIC:
        torch.manual_seed(0)
        for name, found in contenders(problem):
            yield row(problem, name, found)


def environment() -> dict[str, Any]:
    return {
        "command": "python -m tools.gpu_table peers",
        "date": datetime.date.today().isoformat(),
        "commit": results.commit(COUNTED),
        "gpu": GPU.name,
        "arch": f"sm_{GPU.arch}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "liger_kernel": version("liger_kernel"),
        "nvcc": table.nvcc_version(),
    }


def main() -> None:
    check(Problem("realness_d_loss", (64, 20), FP32))
    check(Problem("logistic_d_loss", (4096,), FP32))
    rows = []
    for found in measured():
        rows.append(found)
        print({k: v for k, v in found.items() if k != "kernels"}, flush=True)
    RESULTS.write_text(json.dumps({"environment": environment(), "rows": rows}, indent=1) + "\n")
    table.PAGE.write_text(tables.updated("docs/gpu-kernels.md", table.PAGE.read_text()))
