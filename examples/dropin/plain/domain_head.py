"""Domain adaptation: a domain head behind ReverseLayerF.apply(x, alpha), its strength on Ganin's schedule."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.dropin.shared import Run, adam, batches, discriminator, seeded


class ReverseLayerF(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float) -> Tensor:
        ctx.alpha = alpha
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.neg() * ctx.alpha, None


def train(steps: int = 20) -> Run:
    features = discriminator(outputs=32)
    classes, domains = (seeded(nn.Linear(32, 2), seed) for seed in (3, 4))
    optimizer = adam(features, classes, domains)
    losses = []
    for step, (source, noise) in enumerate(batches(steps)):
        alpha = 2.0 / (1.0 + math.exp(-10 * step / steps)) - 1
        target = -source + 0.1 * noise[:, :1, None, None]
        labels = (source.mean((1, 2, 3)) > -0.7).long()
        both = features(torch.cat([source, target]))
        loss_classes = F.cross_entropy(classes(both[: len(source)]), labels)
        reverse = ReverseLayerF.apply(both, alpha)
        origin = torch.arange(2).repeat_interleave(len(source))
        loss_domains = F.cross_entropy(domains(reverse), origin)
        optimizer.zero_grad()
        (loss_classes + loss_domains).backward()
        optimizer.step()
        losses += [loss_classes.item(), loss_domains.item()]
    return Run(losses, [features, classes, domains])


if __name__ == "__main__":
    print(train().losses[-2:])
