"""Image to image: GANLoss(prediction, target_is_real), whose weight multiplies the generator's calls alone."""

import torch.nn.functional as F

from examples.dropin.shared import PatchDiscriminator, Run, adam, batches, generator
from gankernels.compat import GANLoss


def train(steps: int = 20) -> Run:
    net_g, net_d = generator(), PatchDiscriminator()
    optimizer_g, optimizer_d = adam(net_g), adam(net_d)
    gan_loss = GANLoss("lsgan", 1.0, 0.0, 0.1)
    losses = []
    for real, noise in batches(steps):
        fake = net_g(noise)
        net_d.requires_grad_(False)
        loss_g = F.l1_loss(fake, real) + gan_loss(net_d(fake)[-1], True)
        optimizer_g.zero_grad()
        loss_g.backward()
        optimizer_g.step()

        net_d.requires_grad_(True)
        optimizer_d.zero_grad()
        loss_real = gan_loss(net_d(real)[-1], True, is_disc=True)
        loss_real.backward()
        loss_fake = gan_loss(net_d(fake.detach())[-1], False, is_disc=True)
        loss_fake.backward()
        optimizer_d.step()
        losses += [loss_g.item(), loss_real.item(), loss_fake.item()]
    return Run(losses, [net_g, net_d])


if __name__ == "__main__":
    print(train().losses[-3:])
