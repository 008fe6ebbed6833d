"""RealnessGAN with a divergence of probabilities: kl_divergence(anchor, softmax(logits))."""

import gankernels as gk
from examples.dropin.shared import Run, adam, anchors, batches, discriminator, generator


def train(steps: int = 20) -> Run:
    net_g, net_d = generator(), discriminator(outputs=20)
    optimizer_g, optimizer_d = adam(net_g), adam(net_d)
    anchor_real, anchor_fake = anchors(20)
    losses = []
    for real, noise in batches(steps):
        fake = net_g(noise)
        real_z = net_d(real)
        fake_z = net_d(fake.detach())
        loss_d = gk.realness_d_loss(real_z, fake_z, anchor_real, anchor_fake)
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()

        real_z = net_d(real)
        fake_z = net_d(fake)
        loss_g = gk.realness_g_loss(real_z, fake_z, None, anchor_fake, objective=2)
        optimizer_g.zero_grad()
        loss_g.backward()
        optimizer_g.step()
        losses += [loss_d.item(), loss_g.item()]
    return Run(losses, [net_g, net_d])


if __name__ == "__main__":
    print(train().losses[-2:])
