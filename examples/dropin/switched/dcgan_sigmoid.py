"""DCGAN: binary cross-entropy with tensors of labels, D with a final sigmoid."""

from torch import nn

import gankernels as gk
from examples.dropin.shared import Run, adam, batches, discriminator, generator


def train(steps: int = 20) -> Run:
    net_g = generator()
    net_d = nn.Sequential(discriminator())
    optimizer_g, optimizer_d = adam(net_g), adam(net_d)
    losses = []
    for real, noise in batches(steps):
        net_d.zero_grad()
        fake = net_g(noise)
        loss_d = gk.logistic_d_loss(net_d(real), net_d(fake.detach()))
        loss_d.backward()
        optimizer_d.step()

        net_g.zero_grad()
        loss_g = gk.nonsaturating_g_loss(net_d(fake))
        loss_g.backward()
        optimizer_g.step()
        losses += [loss_d.item(), loss_g.item()]
    return Run(losses, [net_g, net_d])


if __name__ == "__main__":
    print(train().losses[-2:])
