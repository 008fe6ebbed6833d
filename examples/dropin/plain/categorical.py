"""RealnessGAN as published: CategoricalLoss, whose anchor is skewed and projected at every call."""

import torch
from torch import Tensor, nn

from examples.dropin.shared import Run, adam, anchors, batches, discriminator, generator


class CategoricalLoss(nn.Module):
    def __init__(self, atoms: int, v_max: float, v_min: float) -> None:
        super().__init__()
        self.atoms, self.v_max, self.v_min = atoms, v_max, v_min
        self.delta = (v_max - v_min) / (atoms - 1)
        self.register_buffer("places", torch.linspace(v_min, v_max, atoms))

    def forward(self, anchor: Tensor, feature: Tensor, skewness: float = 0.0) -> Tensor:
        moved = (self.places + skewness).clamp(self.v_min, self.v_max)
        b = (moved - self.v_min) / self.delta
        lower, upper = b.floor().long(), b.ceil().long()
        lower[(upper > 0) & (lower == upper)] -= 1
        upper[(lower < self.atoms - 1) & (lower == upper)] += 1
        projected = torch.zeros_like(feature)
        rows = torch.arange(len(feature)).unsqueeze(1)
        for index, share in ((lower, upper - b), (upper, b - lower)):
            projected.index_put_((rows, index), anchor * share, accumulate=True)
        return -(projected * (feature + 1e-16).log()).sum(1).mean()


def train(steps: int = 20) -> Run:
    net_g, net_d = generator(), discriminator(outputs=20)
    optimizer_g, optimizer_d = adam(net_g), adam(net_d)
    anchor_real, anchor_fake = (a.expand(8, 20) for a in anchors(20))
    categorical = CategoricalLoss(atoms=20, v_max=1.0, v_min=-1.0)
    losses = []
    for real, noise in batches(steps):
        fake = net_g(noise)
        real_p, fake_p = net_d(real).softmax(1), net_d(fake.detach()).softmax(1)
        loss_d = categorical(anchor_real, real_p, skewness=1.0)
        loss_d = loss_d + categorical(anchor_fake, fake_p, skewness=-1.0)
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()

        real_p, fake_p = net_d(real).softmax(1), net_d(fake).softmax(1)
        loss_g = categorical(real_p, fake_p) - categorical(anchor_fake, fake_p, skewness=-1.0)
        optimizer_g.zero_grad()
        loss_g.backward()
        optimizer_g.step()
        losses += [loss_d.item(), loss_g.item()]
    return Run(losses, [net_g, net_d])


if __name__ == "__main__":
    print(train().losses[-2:])
