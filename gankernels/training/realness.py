"""What the discriminator of a run says of real and fake samples, beside its anchors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gankernels.modules import RealnessLoss
from gankernels.training.modes import evaluation_mode, same_randomness

__all__ = ["distributions"]


@torch.no_grad()
def distributions(
    discriminator: nn.Module, loss: RealnessLoss, real: Tensor, fake: Tensor
) -> dict[str, list[float]]:
    """The mean distributions of two batches, and the anchors of the loss.

    The discriminator is in evaluation mode meanwhile, and neither it nor any random state changes.

    Args:
        discriminator: Samples to logits.
        loss: Its loss; says which dimension of the logits has the outcomes.
        real, fake: Samples on the discriminator's device.

    Returns:
        ``real_distribution`` and ``fake_distribution``; ``real_anchor`` and ``fake_anchor`` where they
        are one for all rows. Six digits of each number.
    """
    found = {}
    with evaluation_mode(discriminator), same_randomness(real.device):
        for name, samples in (("real", real), ("fake", fake)):
            logits: Tensor = discriminator(samples)
            rows = logits.double().softmax(loss.dim).movedim(loss.dim, -1)
            found[f"{name}_distribution"] = rows.flatten(0, -2).mean(0)
    for name in ("real_anchor", "fake_anchor"):
        if getattr(loss, name).dim() == 1:
            found[name] = getattr(loss, name)
    return {name: [round(x, 6) for x in masses.tolist()] for name, masses in found.items()}
