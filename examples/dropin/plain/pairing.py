"""R3GAN: the relativistic pairing loss with R1 and R2."""

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.dropin.shared import Run, adam, batches, discriminator, generator

GAMMA = 1.0


def zero_centred(images: Tensor, logits: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum([1, 2, 3])


def train(steps: int = 20) -> Run:
    net_g, net_d = generator(), discriminator()
    optimizer_g, optimizer_d = adam(net_g), adam(net_d)
    losses = []
    for real, noise in batches(steps):
        relative = net_d(net_g(noise)) - net_d(real)
        loss_g = F.softplus(-relative).mean()
        optimizer_g.zero_grad()
        loss_g.backward()
        optimizer_g.step()

        real = real.requires_grad_()
        fake = net_g(noise).detach().requires_grad_()
        real_logits, fake_logits = net_d(real), net_d(fake)
        r1, r2 = zero_centred(real, real_logits), zero_centred(fake, fake_logits)
        adversarial = F.softplus(-(real_logits - fake_logits)).view(-1)
        loss_d = (adversarial + GAMMA / 2 * (r1 + r2)).mean()
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()
        losses += [loss_g.item(), loss_d.item()]
    return Run(losses, [net_g, net_d])


if __name__ == "__main__":
    print(train().losses[-2:])
