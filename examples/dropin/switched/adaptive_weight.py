"""An autoencoder with a hinge discriminator, weighed by the gradients of both losses at its last layer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gankernels as gk
from examples.dropin.shared import PatchDiscriminator, Run, adam, batches, seeded


def adaptive_weight(reconstruction: Tensor, loss_g: Tensor, last: Tensor) -> Tensor:
    grad_r = torch.autograd.grad(reconstruction, last, retain_graph=True)[0]
    grad_g = torch.autograd.grad(loss_g, last, retain_graph=True)[0]
    return (grad_r.norm() / (grad_g.norm() + 1e-4)).clamp(0.0, 1e4).detach()


def autoencoder() -> nn.Sequential:
    encoder = nn.Conv2d(1, 8, 4, stride=2, padding=1), nn.SiLU()
    decoder = nn.Conv2d(8, 8, 3, padding=1), nn.SiLU(), nn.Upsample(scale_factor=2)
    return seeded(nn.Sequential(*encoder, *decoder, nn.Conv2d(8, 1, 3, padding=1)), seed=0)


def train(steps: int = 20) -> Run:
    net_a, net_d = autoencoder(), PatchDiscriminator()
    optimizer_a, optimizer_d = adam(net_a), adam(net_d)
    losses = []
    for images, _ in batches(steps):
        fake = net_a(images)
        reconstruction = F.l1_loss(fake, images)
        loss_g = gk.hinge_g_loss(net_d(fake)[-1])
        weight = adaptive_weight(reconstruction, loss_g, net_a[-1].weight)
        optimizer_a.zero_grad()
        (reconstruction + 0.8 * weight * loss_g).backward()
        optimizer_a.step()

        loss_d = gk.hinge_d_loss(net_d(images)[-1], net_d(fake.detach())[-1], scale=0.5)
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()
        losses += [reconstruction.item(), loss_g.item(), loss_d.item()]
    return Run(losses, [net_a, net_d])


if __name__ == "__main__":
    print(train().losses[-3:])
