"""One softplus per sample, two backwards for D, and R1 at every sixteenth step: StyleGAN2's way."""

import torch
import torch.nn.functional as F

from examples.dropin.shared import Run, adam, batches, discriminator, generator

R1_GAMMA, R1_EVERY = 10.0, 16


def train(steps: int = 20) -> Run:
    net_g, net_d = generator(), discriminator()
    optimizer_g, optimizer_d = adam(net_g), adam(net_d)
    losses = []
    for step, (real, noise) in enumerate(batches(steps)):
        loss_g = F.softplus(-net_d(net_g(noise)))
        optimizer_g.zero_grad()
        loss_g.mean().backward()
        optimizer_g.step()

        optimizer_d.zero_grad()
        loss_fake = F.softplus(net_d(net_g(noise).detach()))
        loss_fake.mean().backward()
        real = real.requires_grad_(step % R1_EVERY == 0)
        logits = net_d(real)
        loss_real = F.softplus(-logits)
        if real.requires_grad:
            (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
            penalty = gradient.square().sum([1, 2, 3]) * (R1_GAMMA / 2) * R1_EVERY
            loss_real = loss_real + penalty.unsqueeze(1)
        loss_real.mean().backward()
        optimizer_d.step()
        losses += [x.mean().item() for x in (loss_g, loss_fake, loss_real)]
    return Run(losses, [net_g, net_d])


if __name__ == "__main__":
    print(train().losses[-3:])
