"""DCGAN: binary cross-entropy with tensors of labels, D without a final sigmoid."""

import gankernels as gk
from examples.dropin.shared import Run, adam, batches, discriminator, generator


def train(steps: int = 20) -> Run:
    net_g, net_d = generator(), discriminator()
    optimizer_g, optimizer_d = adam(net_g), adam(net_d)
    losses = []
    for real, noise in batches(steps):
        net_d.zero_grad()
        output = net_d(real).view(-1)
        loss_real = gk.logistic_d_real_loss(output)
        loss_real.backward()
        fake = net_g(noise)
        output = net_d(fake.detach()).view(-1)
        loss_fake = gk.logistic_d_fake_loss(output)
        loss_fake.backward()
        optimizer_d.step()

        net_g.zero_grad()
        output = net_d(fake).view(-1)
        loss_g = gk.nonsaturating_g_loss(output)
        loss_g.backward()
        optimizer_g.step()
        losses += [loss_real.item(), loss_fake.item(), loss_g.item()]
    return Run(losses, [net_g, net_d])


if __name__ == "__main__":
    print(train().losses[-3:])
