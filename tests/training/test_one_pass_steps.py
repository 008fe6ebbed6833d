"""Steps of one forward pass against separate backward passes; the reversal's strength."""

from __future__ import annotations

import copy

import pytest
import torch
from step_pairs import (
    ANCHORS,
    EXACT,
    NOISE,
    assert_same,
    assert_same_gradients,
    batches,
    gradients,
    noise_source,
    smooth_pair,
    state,
    twins,
)
from torch import Tensor, nn

import gankernels as gk
from gankernels.training import (
    Players,
    StepConfig,
    one_pass_step,
    ratio_step,
    reversal_step,
)
from gankernels.training.networks import (
    dcgan_small,
    grl_mlp,
)


def separate_gradients(p: Players, loss: gk.GANLoss, real: Tensor, noise) -> dict[str, Tensor]:
    """Two backward passes at the same parameters, from one forward pass each."""
    fake = p.generator(noise(len(real)))
    of_real, of_fake = p.discriminator(real), p.discriminator(fake)
    d = dict(p.discriminator.named_parameters("d"))
    g = dict(p.generator.named_parameters("g"))
    for_d = torch.autograd.grad(
        loss.discriminator(of_real, of_fake), list(d.values()), retain_graph=True
    )
    for_g = torch.autograd.grad(loss.generator(of_real.detach(), of_fake), list(g.values()))
    return dict(zip(g, for_g, strict=True)) | dict(zip(d, for_d, strict=True))


@pytest.mark.parametrize("d_batch_norm", [True, False])
@pytest.mark.parametrize(
    "loss",
    [
        gk.LogisticLoss(),
        gk.LogisticLoss(saturating=True),
        gk.HingeLoss(),
        gk.RelativisticLoss(),
        gk.RealnessLoss(*(a.double() for a in ANCHORS), objective=2),
        gk.RealnessLoss(*(a.double() for a in ANCHORS), objective=3),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_one_pass_is_two_backward_passes(loss: gk.GANLoss, d_batch_norm: bool) -> None:
    outcomes = 20 if isinstance(loss, gk.RealnessLoss) else 1
    build = lambda: dcgan_small(8, 1, outcomes, NOISE, 4, d_batch_norm)  # noqa: E731
    ours, theirs = twins(build, **EXACT)
    real = batches(8, 1, torch.float64)[0]
    expected = separate_gradients(theirs, loss, real, noise_source(torch.float64))
    one_pass_step(ours, loss, real, noise_source(torch.float64))
    assert_same_gradients(gradients(ours), expected, rtol=1e-11)


@pytest.mark.parametrize("norm", [None, "group", "spectral"])
def test_ratio_is_the_one_pass_step_without_batchnorm(norm: str | None) -> None:
    def build() -> tuple[nn.Module, nn.Module]:
        generator, discriminator = smooth_pair()
        if norm == "group":
            discriminator.insert(1, nn.GroupNorm(2, 4))
        elif norm == "spectral":
            nn.utils.parametrizations.spectral_norm(discriminator[0])
        return generator, discriminator

    ours, theirs = twins(build, **EXACT)
    noises = noise_source(torch.float64), noise_source(torch.float64)
    for real in batches(8, 1, torch.float64):
        got = ratio_step(ours, gk.LogisticLoss(), real, noises[0])
        expected = one_pass_step(theirs, gk.LogisticLoss(), real, noises[1])
        torch.testing.assert_close(got["g_loss"], expected["g_loss"], rtol=1e-9, atol=0)
        assert_same_gradients(gradients(ours), gradients(theirs), rtol=1e-9)
    assert_same(ours, theirs, rtol=1e-6)


def test_ratio_stays_finite_where_its_exponential_does_not() -> None:
    build = lambda: dcgan_small(8, 1, 1, NOISE, 4, d_batch_norm=False)  # noqa: E731
    ours, _ = twins(build)
    with torch.no_grad():
        ours.discriminator[-1].bias.fill_(-200.0)
    ratio_step(ours, gk.LogisticLoss(), batches(8, 1)[0], noise_source())
    assert all(g.isfinite().all() for g in gradients(ours).values())


def test_ratio_refuses_batchnorm_and_other_losses() -> None:
    real, noise = batches(8, 1)[0], noise_source()
    with_norm, _ = twins(lambda: dcgan_small(8, 1, 1, NOISE, 4, d_batch_norm=True))
    before = copy.deepcopy(state(with_norm))
    with pytest.raises(ValueError, match="BatchNorm"):
        ratio_step(with_norm, gk.LogisticLoss(), real, noise)
    assert all(torch.equal(v, before[k]) for k, v in state(with_norm).items())
    without, _ = twins(lambda: dcgan_small(8, 1, 1, NOISE, 4, d_batch_norm=False))
    for loss in (gk.HingeLoss(), gk.LogisticLoss(saturating=True)):
        with pytest.raises(ValueError, match="non-saturating logistic loss"):
            ratio_step(without, loss, real, noise)


def test_reversal_strength_scales_the_generators_gradient_only() -> None:
    a, b = twins(lambda: grl_mlp(8, 1, 1, NOISE, 8, dropout=0.0))
    real = batches(8, 1)[0]
    reversal_step(a, gk.LogisticLoss(), real, noise_source())
    reversal_step(b, gk.LogisticLoss(), real, noise_source(), StepConfig(alpha=0.25))
    expected = {n: g * (0.25 if n.startswith("g.") else 1.0) for n, g in gradients(a).items()}
    assert_same_gradients(gradients(b), expected, rtol=1e-5)
