"""The kernels that a user would pick instead of ours, counted as ours are: writes docs/results/gpu-peers.json.

    python -m tools.gpu_table peers   # needs a CUDA build of torch, Liger and nvcc, and no GPU: a few minutes

Nobody's code is kept: Liger's kernels are those of the installed package, Inductor's are generated on the way.
"""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import torch
import triton
from torch import Tensor

from benchmarks import formulas, results
from tools.gpu_table import peers_inductor, peers_liger, peers_ours, table
from tools.gpu_table.cases import BF16, FP32
from tools.gpu_table.peers_counts import GPU, Launch, Problem, row
from tools.gpu_table.peers_page import RESULTS

Formula = Callable[..., Tensor]
REALNESS = [
    Problem("realness_d_loss", (4096, 20), FP32),
    Problem("realness_d_loss", (8192, 1024), BF16),
    Problem("realness_d_loss", (8192, 4096), BF16),
    Problem("realness_d_loss", (1024, 32768), BF16),
]
LOGISTIC = [Problem("logistic_d_loss", (1 << 20,), FP32)]
LIGER = {
    "Liger KL divergence": peers_liger.divergence,
    "Liger cross-entropy": peers_liger.cross_entropy,
}
ALL = 1 << 30  # blocks
COUNTED = ("tools/gpu_table", "tools/ptxsim", "gankernels", "csrc/cuda", "benchmarks/formulas.py")


def check(problem: Problem) -> None:
    """Every peer, run whole on a small problem, against its formula as PyTorch runs it."""
    realness = problem.operator == "realness_d_loss"
    for name, formula in (formulas.REALNESS_D if realness else formulas.LOGISTIC_D).items():
        torch.manual_seed(0)
        found = peers_inductor.run(formula, problem, blocks=ALL)[1]
        compare(f"{name}, compiled", found, formula, problem)
    for name, peer in LIGER.items() if realness else ():
        torch.manual_seed(0)
        found = peer(problem, blocks=ALL)[1]
        one_hot = name == "Liger cross-entropy"
        formula = peers_liger.of_classes if one_hot else formulas.kl_div_realness_d
        compare(name, found, formula, problem)


def compare(name: str, found: list[Tensor], formula: Formula, problem: Problem) -> None:
    torch.manual_seed(0)
    inputs = problem.inputs()
    loss = formula(*inputs)
    expected = [loss, *torch.autograd.grad(loss, inputs[:2])]
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, msg=lambda text: f"{name}: {text}")


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
