"""Domain adaptation: a domain head behind ReverseLayerF.apply(x, alpha), its strength on Ganin's schedule."""

import math

import torch
import torch.nn.functional as F
from torch import nn

import gankernels as gk
from examples.dropin.shared import Run, adam, batches, discriminator, seeded


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
        reverse = gk.gradient_reversal(both, alpha)
        origin = torch.arange(2).repeat_interleave(len(source))
        loss_domains = F.cross_entropy(domains(reverse), origin)
        optimizer.zero_grad()
        (loss_classes + loss_domains).backward()
        optimizer.step()
        losses += [loss_classes.item(), loss_domains.item()]
    return Run(losses, [features, classes, domains])


if __name__ == "__main__":
    print(train().losses[-2:])
