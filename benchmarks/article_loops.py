"""The training loops of the three articles, written out plainly: what the steps are held to.

Tests compare parameters with these loops, benchmarks compare times. Nothing of gankernels runs in
them but the :class:`Players` that hold networks and optimizers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.formulas import NegatedGradient, epsilon_kl_of_probabilities
from gankernels.training.players import Players

Noise = Callable[[int], Tensor]
Anchors = tuple[Tensor, Tensor]


def realness_d_loss(p: Players, real: Tensor, fake: Tensor, anchors: Anchors) -> Tensor:
    """Equation 3, on probabilities."""
    of_real = F.softmax(p.discriminator(real), dim=1)
    of_fake = F.softmax(p.discriminator(fake), dim=1)
    kl = epsilon_kl_of_probabilities
    return kl(anchors[0], of_real) + kl(anchors[1], of_fake)


def realness_g_loss(
    p: Players, real: Tensor, fake: Tensor, anchors: Anchors, objective: int
) -> Tensor:
    """Equations 18, 19 and 20, on probabilities."""
    of_real = F.softmax(p.discriminator(real), dim=1)
    of_fake = F.softmax(p.discriminator(fake), dim=1)
    kl = epsilon_kl_of_probabilities
    away = -kl(anchors[1], of_fake)
    if objective == 1:
        return away
    return away + kl(of_real if objective == 2 else anchors[0], of_fake)


def third_article(
    p: Players, real: Tensor, noise: Noise, anchors: Anchors, objective: int, g_updates: int = 1
) -> tuple[Tensor, Tensor]:
    """RealnessGAN: D, then G; D sees the real images again in the generator's turn."""
    d_loss = realness_d_loss(p, real, p.generator(noise(len(real))).detach(), anchors)
    p.d_optimizer.zero_grad()
    d_loss.backward()
    p.d_optimizer.step()
    for _ in range(g_updates):
        g_loss = realness_g_loss(p, real, p.generator(noise(len(real))), anchors, objective)
        p.g_optimizer.zero_grad()
        g_loss.backward()
        p.g_optimizer.step()
    return d_loss, g_loss


def second_article(p: Players, real: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """DCGAN: G, then D, each with fresh noise; two BCE terms with logits."""
    criterion = nn.BCEWithLogitsLoss()
    p.g_optimizer.zero_grad()
    of_fake = p.discriminator(p.generator(noise(len(real))))
    g_loss = criterion(of_fake, torch.ones_like(of_fake))
    g_loss.backward()
    p.g_optimizer.step()
    p.d_optimizer.zero_grad()
    of_fake = p.discriminator(p.generator(noise(len(real))).detach())
    of_real = p.discriminator(real)
    d_loss = criterion(of_fake, torch.zeros_like(of_fake))
    d_loss = d_loss + criterion(of_real, torch.ones_like(of_real))
    d_loss.backward()
    p.d_optimizer.step()
    return d_loss, g_loss


def first_article(p: Players, real: Tensor, noise: Noise) -> Tensor:
    """One optimizer for both networks, through a gradient reversal layer."""
    p.g_optimizer.zero_grad()
    of_fake = p.discriminator(NegatedGradient.apply(p.generator(noise(len(real)))))
    of_real = p.discriminator(real)
    loss = F.softplus(of_fake).mean() + F.softplus(-of_real).mean()
    loss.backward()
    p.g_optimizer.step()
    return loss


def simultaneous(
    p: Players,
    real: Tensor,
    noise: Noise,
    losses: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    fake_first: bool = False,
) -> None:
    """Both networks updated at the same parameters and noise, one backward pass for each.

    Args:
        losses: From real and fake logits to the losses of the discriminator and the generator.
        fake_first: Whether D sees the fake batch first.
    """
    fake = p.generator(noise(len(real)))
    if fake_first:
        of_fake = p.discriminator(fake)
        of_real = p.discriminator(real)
    else:
        of_real = p.discriminator(real)
        of_fake = p.discriminator(fake)
    d_loss, g_loss = losses(of_real, of_fake)
    of_d = [w for w in p.discriminator.parameters() if w.requires_grad]
    of_g = [w for w in p.generator.parameters() if w.requires_grad]
    d_grads = torch.autograd.grad(d_loss, of_d, retain_graph=True)
    g_grads = torch.autograd.grad(g_loss, of_g)
    for weight, gradient in zip([*of_d, *of_g], [*d_grads, *g_grads], strict=True):
        weight.grad = gradient
    for optimizer in {id(o): o for o in (p.d_optimizer, p.g_optimizer)}.values():
        optimizer.step()
