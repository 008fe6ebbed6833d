"""Whether a peer as it is run here computes its loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import formulas
from tools.gpu_table import peers_inductor, peers_liger
from tools.gpu_table.peers_counts import Problem

ALL = 1 << 30  # blocks
Formula = Callable[..., Tensor]
LIGER = {
    "Liger KL divergence": peers_liger.divergence,
    "Liger cross-entropy": peers_liger.cross_entropy,
}


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
