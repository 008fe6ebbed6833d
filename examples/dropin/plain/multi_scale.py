"""Lists of discriminators at several scales, least squares, and feature matching: vocoders, high resolution."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.dropin.shared import PatchDiscriminator, Run, adam, batches, generator

Maps = list[list[Tensor]]


def discriminator_loss(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    loss = 0
    for r, f in zip(real, fake, strict=True):
        loss = loss + torch.mean((1 - r) ** 2) + torch.mean(f**2)
    return loss


def generator_loss(fake: list[Tensor]) -> Tensor:
    loss = 0
    for f in fake:
        loss = loss + torch.mean((1 - f) ** 2)
    return loss


def feature_loss(real: Maps, fake: Maps) -> Tensor:
    loss = 0
    for real_maps, fake_maps in zip(real, fake, strict=True):
        for r, f in zip(real_maps, fake_maps, strict=True):
            loss = loss + torch.mean(torch.abs(r.detach() - f))
    return loss * 2


class MultiScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(PatchDiscriminator(seed) for seed in (1, 2, 3))

    def forward(self, x: Tensor) -> Maps:
        return [net(F.avg_pool2d(x, 2**i)) for i, net in enumerate(self.nets)]


def train(steps: int = 20) -> Run:
    net_g, net_d = generator(), MultiScale()
    optimizer_g, optimizer_d = adam(net_g), adam(net_d)
    losses = []
    for real, noise in batches(steps):
        fake = net_g(noise)
        real_maps, fake_maps = net_d(real), net_d(fake.detach())
        loss_d = discriminator_loss([m[-1] for m in real_maps], [m[-1] for m in fake_maps])
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()

        real_maps, fake_maps = net_d(real), net_d(fake)
        loss_gan = generator_loss([m[-1] for m in fake_maps])
        loss_features = feature_loss(real_maps, fake_maps)
        optimizer_g.zero_grad()
        (loss_gan + loss_features).backward()
        optimizer_g.step()
        losses += [loss_d.item(), loss_gan.item(), loss_features.item()]
    return Run(losses, [net_g, net_d])


if __name__ == "__main__":
    print(train().losses[-3:])
