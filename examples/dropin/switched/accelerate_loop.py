"""Hugging Face accelerate: prepared networks and optimizers, accelerator.backward, hinge losses."""

from accelerate import Accelerator

import gankernels as gk
from examples.dropin.shared import Run, adam, batches, discriminator, generator


def train(steps: int = 20) -> Run:
    accelerator = Accelerator(cpu=True)
    net_g, net_d = generator(), discriminator()
    net_g, net_d, optimizer_g, optimizer_d = accelerator.prepare(
        net_g, net_d, adam(net_g), adam(net_d)
    )
    losses = []
    for real, noise in batches(steps):
        fake = net_g(noise)
        real_logits, fake_logits = net_d(real), net_d(fake.detach())
        loss_d = gk.hinge_d_loss(real_logits, fake_logits)
        optimizer_d.zero_grad()
        accelerator.backward(loss_d)
        optimizer_d.step()

        loss_g = gk.hinge_g_loss(net_d(fake))
        optimizer_g.zero_grad()
        accelerator.backward(loss_g)
        optimizer_g.step()
        losses += [loss_d.item(), loss_g.item()]
    return Run(losses, [accelerator.unwrap_model(n) for n in (net_g, net_d)])


if __name__ == "__main__":
    print(train().losses[-2:])
