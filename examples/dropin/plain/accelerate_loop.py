"""Hugging Face accelerate: prepared networks and optimizers, accelerator.backward, hinge losses."""

import torch.nn.functional as F
from accelerate import Accelerator

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
        loss_d = F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
        optimizer_d.zero_grad()
        accelerator.backward(loss_d)
        optimizer_d.step()

        loss_g = -net_d(fake).mean()
        optimizer_g.zero_grad()
        accelerator.backward(loss_g)
        optimizer_g.step()
        losses += [loss_d.item(), loss_g.item()]
    return Run(losses, [accelerator.unwrap_model(n) for n in (net_g, net_d)])


if __name__ == "__main__":
    print(train().losses[-2:])
