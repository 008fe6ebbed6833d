"""The steps against the articles' own loops, written out plainly in `benchmarks.article_loops`."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from step_pairs import ANCHORS, EXACT, NOISE, assert_same, batches, noise_source, twins
from torch import Tensor, nn

import gankernels as gk
from benchmarks.article_loops import first_article, second_article, third_article
from gankernels.training import (
    Players,
    StepConfig,
    alternating_step,
    reversal_step,
)
from gankernels.training.networks import (
    ReversalGAN,
    dcgan_article,
    dcgan_small,
    dcgan_spectral,
    grl_mlp,
    realness_article,
)


@pytest.mark.parametrize("objective", [1, 2, 3])
@pytest.mark.parametrize("g_updates", [1, 3])
def test_alternating_is_the_third_articles_loop(objective: int, g_updates: int) -> None:
    ours, theirs = twins(lambda: realness_article(16, 3, 20, NOISE), betas=(0.0, 0.9), **EXACT)
    anchors = tuple(a.double() for a in ANCHORS)
    loss = gk.RealnessLoss(*anchors, objective=objective)
    config = StepConfig(g_updates=g_updates)
    noises = noise_source(torch.float64), noise_source(torch.float64)
    for i, real in enumerate(batches(16, 3, torch.float64)):
        got = alternating_step(ours, loss, real, noises[0], config, i)
        d_loss, g_loss = third_article(theirs, real, noises[1], anchors, objective, g_updates)
        torch.testing.assert_close(got["d_loss"], d_loss.detach(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(got["g_loss"], g_loss.detach(), rtol=1e-9, atol=1e-12)
    assert_same(ours, theirs, rtol=1e-6)


def without_idle_biases(networks: tuple[nn.Module, nn.Module]) -> tuple[nn.Module, nn.Module]:
    """BatchNorm cancels the bias before it; its gradient is rounding noise, which Adam blows up."""
    for network in networks:
        for layer, following in pairwise(network):
            if isinstance(following, (nn.BatchNorm1d, nn.BatchNorm2d)):
                layer.bias.requires_grad_(False)
    return networks


def test_alternating_is_the_second_articles_loop() -> None:
    """BatchNorm in both networks: the buffers too, which see the batches in the article's order."""
    ours, theirs = twins(
        lambda: without_idle_biases(dcgan_article(16, 1, 1, NOISE, width=4)), **EXACT
    )
    config = StepConfig(order="g_first", fake_first=True)
    noises = noise_source(torch.float64), noise_source(torch.float64)
    for i, real in enumerate(batches(16, 1, torch.float64)):
        got = alternating_step(ours, gk.LogisticLoss(), real, noises[0], config, i)
        d_loss, g_loss = second_article(theirs, real, noises[1])
        torch.testing.assert_close(got["d_loss"], d_loss.detach(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(got["g_loss"], g_loss.detach(), rtol=1e-9, atol=1e-12)
    assert_same(ours, theirs, rtol=1e-6)


def test_reversal_is_the_first_articles_loop() -> None:
    """Dropout in D: the same random numbers reach the same batches."""
    build = lambda: without_idle_biases(grl_mlp(8, 1, 1, NOISE, width=16))  # noqa: E731
    ours, theirs = twins(build, shared=True, **EXACT)
    noises = noise_source(torch.float64), noise_source(torch.float64)
    for i, real in enumerate(batches(8, 1, torch.float64)):
        torch.manual_seed(i)
        config = StepConfig(fake_first=True)
        got = reversal_step(ours, gk.LogisticLoss(saturating=True), real, noises[0], config, i)
        torch.manual_seed(i)
        loss = first_article(theirs, real, noises[1])
        torch.testing.assert_close(got["d_loss"], loss.detach(), rtol=1e-9, atol=1e-12)
    assert_same(ours, theirs, rtol=1e-6)


def test_reversal_gan_module_trains_as_the_reversal_step() -> None:
    ours, theirs = twins(lambda: grl_mlp(8, 1, 1, NOISE, width=16, dropout=0.0), shared=True)
    model = ReversalGAN(theirs.generator, theirs.discriminator, NOISE)
    noises = noise_source(), noise_source()
    for real in batches(8, 1):
        reversal_step(ours, gk.LogisticLoss(), real, noises[0], StepConfig(fake_first=True))
        theirs.g_optimizer.zero_grad()
        loss_fake, loss_real = model(real, noises[1](len(real)))
        (loss_fake + loss_real).backward()
        theirs.g_optimizer.step()
    assert_same(ours, theirs, rtol=1e-5)


# -------------------------------------------------- bit for bit, where the arithmetic is the same


def plain_step(
    p: Players,
    loss: gk.GANLoss,
    real: Tensor,
    noise,
    order: str = "d_first",
    fake_first: bool = False,
) -> None:
    """Both phases in the textbook form, with the package's loss through autograd."""

    def logits(fake: Tensor, with_real: bool = True) -> tuple[Tensor | None, Tensor]:
        if fake_first:
            of_fake = p.discriminator(fake)
            return p.discriminator(real) if with_real else None, of_fake
        return p.discriminator(real) if with_real else None, p.discriminator(fake)

    def d_phase() -> None:
        p.d_optimizer.zero_grad()
        fake = p.generator(noise(len(real))).detach()
        loss.discriminator(*logits(fake)).backward()
        p.d_optimizer.step()

    def g_phase() -> None:
        p.g_optimizer.zero_grad()
        fake = p.generator(noise(len(real)))
        loss.generator(*logits(fake, loss.generator_uses_real)).backward()
        p.g_optimizer.step()

    for phase in (d_phase, g_phase) if order == "d_first" else (g_phase, d_phase):
        phase()


@pytest.mark.parametrize("optimizer", ["fused", "foreach", "loop"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_realness_bitwise(optimizer: str, channels_last: bool) -> None:
    config = StepConfig(optimizer=optimizer, channels_last=channels_last)
    ours, theirs = twins(lambda: realness_article(16, 3, 20, NOISE), config=config)
    loss, noises = gk.RealnessLoss(*ANCHORS), (noise_source(), noise_source())
    for i, real in enumerate(batches(16, 3)):
        real = real if channels_last else real.contiguous()
        alternating_step(ours, loss, real, noises[0], config, i)
        plain_step(theirs, loss, real, noises[1])
    assert_same(ours, theirs)


@pytest.mark.parametrize("order", ["d_first", "g_first"])
@pytest.mark.parametrize(
    "loss",
    [
        gk.LogisticLoss(),
        gk.HingeLoss(),
        gk.LSGANLoss(),
        gk.WassersteinLoss(),
        gk.RelativisticLoss(),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_dcgan_bitwise_with_every_loss(loss: gk.GANLoss, order: str) -> None:
    config = StepConfig(order=order)
    ours, theirs = twins(lambda: dcgan_small(8, 1, 1, NOISE, width=4), config=config)
    noises = noise_source(), noise_source()
    for i, real in enumerate(batches(8, 1)):
        alternating_step(ours, loss, real, noises[0], config, i)
        plain_step(theirs, loss, real, noises[1], order)
    assert_same(ours, theirs)


@pytest.mark.parametrize("fake_first", [True, False])
def test_batchnorm_statistics_bitwise(fake_first: bool) -> None:
    """Also with a loss that looks at the real batch in the generator phase."""
    config = StepConfig(order="g_first", fake_first=fake_first)
    ours, theirs = twins(lambda: dcgan_article(16, 1, 1, NOISE, width=4), config=config)
    loss, noises = gk.RelativisticLoss(), (noise_source(), noise_source())
    for i, real in enumerate(batches(16, 1)):
        alternating_step(ours, loss, real, noises[0], config, i)
        plain_step(theirs, loss, real, noises[1], "g_first", fake_first)
    assert_same(ours, theirs)


def test_spectral_norm_and_resampling_bitwise() -> None:
    """Power iteration moves D's buffers at every forward pass, resampling draws in each."""
    ours, theirs = twins(lambda: dcgan_spectral(8, 1, 5, NOISE, width=4))
    loss = gk.RealnessLoss(*gk.anchors.article(5, seed=0))
    noises = noise_source(), noise_source()
    for i, real in enumerate(batches(8, 1)):
        torch.manual_seed(i)
        alternating_step(ours, loss, real, noises[0], None, i)
        torch.manual_seed(i)
        plain_step(theirs, loss, real, noises[1])
    assert_same(ours, theirs)
