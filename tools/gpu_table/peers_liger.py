"""Liger's kernels, called through Liger's own functions; around them PyTorch's operators run."""

from __future__ import annotations

from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.gpu_table.peers_counts import BLOCKS, Launch, Problem, launches, without_ones


def divergence(problem: Problem, blocks: int = BLOCKS) -> tuple[list[Launch], list[Tensor]]:
    """KL of each batch: log_softmax, expanded anchor, LigerKLDIVLoss, as benchmarks/formulas.py times it.

    Returns:
        The launches of forward and backward; the loss and the gradients.
    """
    from benchmarks.formulas import installed_realness_d

    loss_of = installed_realness_d()["Liger"]
    inputs = problem.inputs()
    with launches(blocks) as found:
        loss = loss_of(*inputs)
        gradients = torch.autograd.grad(loss, inputs[:2], torch.ones_like(loss))
    return without_ones(found), [loss, *gradients]


def cross_entropy(problem: Problem, blocks: int = BLOCKS) -> tuple[list[Launch], list[Tensor]]:
    """Cross-entropy with a class per row in place of the anchor; the gradients take the logits' memory."""
    from liger_kernel.ops import cross_entropy as module

    real, fake, *_ = problem.inputs()
    classes = classes_of(problem.shape)
    with (
        launches(blocks) as found,
        mock.patch.object(module, "infer_device_arch", return_value="hopper"),
    ):
        term = module.LigerCrossEntropyFunction.apply
        loss = term(real, classes[0], None)[0] + term(fake, classes[1], None)[0]
        gradients = torch.autograd.grad(loss, (real, fake), torch.ones_like(loss))
    return without_ones(found), [loss, *gradients]


def classes_of(shape: tuple[int, ...]) -> list[Tensor]:
    """The last class for real rows, the first one for fake ones."""
    return [torch.full(shape[:1], index) for index in (shape[1] - 1, 0)]


def of_classes(real: Tensor, fake: Tensor, *_: Tensor) -> Tensor:
    """What the cross-entropy computes."""
    ones, zeros = classes_of(tuple(real.shape))
    return F.cross_entropy(real, ones) + F.cross_entropy(fake, zeros)
