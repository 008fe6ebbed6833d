"""RealnessGAN with a divergence of probabilities: kl_divergence(anchor, softmax(logits))."""

from torch import Tensor

from examples.dropin.shared import Run, adam, anchors, batches, discriminator, generator


def kl_divergence(p: Tensor, q: Tensor, epsilon: float = 1e-16) -> Tensor:
    return (p * ((p + epsilon) / (q + epsilon)).log()).sum(1).mean()


def train(steps: int = 20) -> Run:
    net_g, net_d = generator(), discriminator(outputs=20)
    optimizer_g, optimizer_d = adam(net_g), adam(net_d)
    anchor_real, anchor_fake = anchors(20)
    losses = []
    for real, noise in batches(steps):
        fake = net_g(noise)
        real_p = net_d(real).softmax(1)
        fake_p = net_d(fake.detach()).softmax(1)
        loss_d = kl_divergence(anchor_real, real_p) + kl_divergence(anchor_fake, fake_p)
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()

        real_p = net_d(real).softmax(1)
        fake_p = net_d(fake).softmax(1)
        loss_g = kl_divergence(real_p, fake_p) - kl_divergence(anchor_fake, fake_p)
        optimizer_g.zero_grad()
        loss_g.backward()
        optimizer_g.step()
        losses += [loss_d.item(), loss_g.item()]
    return Run(losses, [net_g, net_d])


if __name__ == "__main__":
    print(train().losses[-2:])
