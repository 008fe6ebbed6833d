"""DCGAN: binary cross-entropy with tensors of labels, D with a final sigmoid."""

import torch
from torch import nn

from examples.dropin.shared import Run, adam, batches, discriminator, generator


def train(steps: int = 20) -> Run:
    net_g = generator()
    net_d = nn.Sequential(discriminator(), nn.Sigmoid())
    optimizer_g, optimizer_d = adam(net_g), adam(net_d)
    criterion = nn.BCELoss()
    losses = []
    for real, noise in batches(steps):
        net_d.zero_grad()
        valid, generated = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        fake = net_g(noise)
        loss_d = criterion(net_d(real), valid) + criterion(net_d(fake.detach()), generated)
        loss_d.backward()
        optimizer_d.step()

        net_g.zero_grad()
        loss_g = criterion(net_d(fake), valid)
        loss_g.backward()
        optimizer_g.step()
        losses += [loss_d.item(), loss_g.item()]
    return Run(losses, [net_g, net_d])


if __name__ == "__main__":
    print(train().losses[-2:])
