"""DCGAN: binary cross-entropy with tensors of labels, D without a final sigmoid."""

import torch
from torch import nn

from examples.dropin.shared import Run, adam, batches, discriminator, generator


def train(steps: int = 20) -> Run:
    net_g, net_d = generator(), discriminator()
    optimizer_g, optimizer_d = adam(net_g), adam(net_d)
    criterion = nn.BCEWithLogitsLoss()
    losses = []
    for real, noise in batches(steps):
        net_d.zero_grad()
        label = torch.full((len(real),), 1.0)
        output = net_d(real).view(-1)
        loss_real = criterion(output, label)
        loss_real.backward()
        fake = net_g(noise)
        label.fill_(0.0)
        output = net_d(fake.detach()).view(-1)
        loss_fake = criterion(output, label)
        loss_fake.backward()
        optimizer_d.step()

        net_g.zero_grad()
        label.fill_(1.0)
        output = net_d(fake).view(-1)
        loss_g = criterion(output, label)
        loss_g.backward()
        optimizer_g.step()
        losses += [loss_real.item(), loss_fake.item(), loss_g.item()]
    return Run(losses, [net_g, net_d])


if __name__ == "__main__":
    print(train().losses[-3:])
