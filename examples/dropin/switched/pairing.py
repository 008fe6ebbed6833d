"""R3GAN: the relativistic pairing loss with R1 and R2."""

import gankernels as gk
from examples.dropin.shared import Run, adam, batches, discriminator, generator

GAMMA = 1.0


def train(steps: int = 20) -> Run:
    net_g, net_d = generator(), discriminator()
    optimizer_g, optimizer_d = adam(net_g), adam(net_d)
    losses = []
    for real, noise in batches(steps):
        loss_g = gk.relativistic_pairing_g_loss(net_d(real), net_d(net_g(noise)))
        optimizer_g.zero_grad()
        loss_g.backward()
        optimizer_g.step()

        real = real.requires_grad_()
        fake = net_g(noise).detach().requires_grad_()
        real_logits, fake_logits = net_d(real), net_d(fake)
        r1, r2 = gk.r1_penalty(real_logits, real), gk.r2_penalty(fake_logits, fake)
        adversarial = gk.relativistic_pairing_d_loss(real_logits, fake_logits)
        loss_d = adversarial + GAMMA * (r1 + r2)
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()
        losses += [loss_g.item(), loss_d.item()]
    return Run(losses, [net_g, net_d])


if __name__ == "__main__":
    print(train().losses[-2:])
