"""Accumulation, clipping, penalty, precision, compilation: what the options of a step do, and leave."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from step_pairs import (
    BATCH,
    EXACT,
    NOISE,
    assert_same,
    assert_same_gradients,
    batches,
    gradients,
    noise_source,
    players,
    smooth_pair,
    twins,
)
from torch import Tensor, nn

import gankernels as gk
from gankernels.training import (
    StepConfig,
    alternating_step,
    one_pass_step,
    ratio_step,
    reversal_step,
)

ALL_STEPS = {
    "alternating": alternating_step,
    "reversal": reversal_step,
    "one_pass": one_pass_step,
    "ratio": ratio_step,
}
every_step = pytest.mark.parametrize("step", ALL_STEPS.values(), ids=ALL_STEPS.keys())


@every_step
def test_accumulation_is_one_large_batch(step: Callable[..., dict[str, Tensor]]) -> None:
    ours, theirs = twins(smooth_pair, **EXACT)
    noises = noise_source(torch.float64), noise_source(torch.float64)
    for real in batches(8, 1, torch.float64):
        a = step(ours, gk.LogisticLoss(), real, noises[0], StepConfig(accumulate=4))
        b = step(theirs, gk.LogisticLoss(), real, noises[1])
        assert a.keys() == b.keys()
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-9, atol=1e-12)
    assert_same(ours, theirs, rtol=1e-6)


def test_accumulation_must_divide_the_batch() -> None:
    ours, _ = twins(smooth_pair)
    with pytest.raises(ValueError, match="accumulate=3 must divide the batch, which has 8"):
        alternating_step(
            ours, gk.LogisticLoss(), batches(8, 1)[0], noise_source(), StepConfig(accumulate=3)
        )


@every_step
def test_clipping_scales_each_networks_gradient(step: Callable[..., dict[str, Tensor]]) -> None:
    ours, theirs = twins(smooth_pair)
    real, limit = batches(8, 1)[0], 1e-3
    a = step(ours, gk.LogisticLoss(), real, noise_source(), StepConfig(clip=limit))
    b = step(theirs, gk.LogisticLoss(), real, noise_source())
    assert b["d_grad_norm"] > limit
    assert a["d_grad_norm"] == b["d_grad_norm"]  # measured before clipping
    for prefix in ("g.", "d."):
        of_a = [g for n, g in gradients(ours).items() if n.startswith(prefix)]
        assert float(nn.utils.get_total_norm(of_a)) == pytest.approx(limit, rel=1e-2)


@every_step
def test_r1_every_other_step(step: Callable[..., dict[str, Tensor]]) -> None:
    """The penalty adds every * gamma/2 * grad E|grad D(real)|^2 to D's gradient, when it is due."""
    gamma, every = 0.7, 2
    config = StepConfig(r1_gamma=gamma, r1_every=every)
    real = batches(8, 1, torch.float64)[0]
    for iteration in range(3):
        ours, theirs = twins(smooth_pair, **EXACT)
        step(theirs, gk.LogisticLoss(), real, noise_source(torch.float64))
        expected = gradients(theirs)
        if iteration % every == 0:
            plain, _ = twins(smooth_pair, **EXACT)
            x = real.clone().requires_grad_()
            (g,) = torch.autograd.grad(plain.discriminator(x).sum(), x, create_graph=True)
            penalty = gamma / 2 * g.square().flatten(1).sum(1).mean() * every
            penalty.backward()
            for name, parameter in plain.discriminator.named_parameters("d"):
                if parameter.grad is not None:
                    expected[name] = expected[name] + parameter.grad
        got = step(ours, gk.LogisticLoss(), real, noise_source(torch.float64), config, iteration)
        assert ("r1" in got) == (iteration % every == 0)
        found = gradients(ours)
        # In an alternating step, G's gradient already sees the D that the penalty moved.
        keep = "d." if step is alternating_step else ""
        assert_same_gradients(
            {n: v for n, v in found.items() if n.startswith(keep)},
            {n: v for n, v in expected.items() if n.startswith(keep)},
            rtol=1e-9,
        )


both_to_themselves = pytest.mark.parametrize("step", [alternating_step, one_pass_step])


def of_d(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: g for n, g in found.items() if n.startswith("d.")}


@both_to_themselves
def test_r2_is_r1_at_the_fake_samples(step: Callable[..., dict[str, Tensor]]) -> None:
    """Both penalties add every * gamma/2 * grad E|grad D|^2 to D's gradient, nothing to G's."""
    real = batches(8, 1, torch.float64)[0]
    config = StepConfig(r1_gamma=0.3, r2_gamma=0.7, r1_every=2)
    for iteration in range(2):
        ours, theirs = twins(smooth_pair, **EXACT)
        plain, _ = twins(smooth_pair, **EXACT)
        fake = plain.generator(noise_source(torch.float64)(len(real))).detach()
        got = step(ours, gk.LogisticLoss(), real, noise_source(torch.float64), config, iteration)
        step(theirs, gk.LogisticLoss(), real, noise_source(torch.float64))
        expected = gradients(theirs)
        assert ({"r1", "r2"} <= set(got)) == (iteration == 0)
        if iteration == 0:
            d = plain.discriminator
            for gamma, images, name in ((0.3, real, "r1"), (0.7, fake, "r2")):
                x = images.clone().requires_grad_()
                (g,) = torch.autograd.grad(d(x).sum(), x, create_graph=True)
                penalty = g.square().flatten(1).sum(1).mean() / 2
                torch.testing.assert_close(got[name], penalty.detach(), rtol=1e-9, atol=0)
                (2 * gamma * penalty).backward()
            for name, parameter in d.named_parameters("d"):
                if parameter.grad is not None:
                    expected[name] = expected[name] + parameter.grad
        found = gradients(ours)
        if step is alternating_step:  # whose G already sees the D that the penalties moved
            found, expected = of_d(found), of_d(expected)
        assert_same_gradients(found, expected, rtol=1e-9)


@both_to_themselves
def test_lecam_adds_its_gradient_to_ds(step: Callable[..., dict[str, Tensor]]) -> None:
    config = StepConfig(lecam=0.6)
    ours, theirs = twins(smooth_pair, **EXACT, config=config)
    penalty = gk.LeCamPenalty().double()
    assert ours.lecam is not None
    ours.lecam.double()
    noises = noise_source(torch.float64), noise_source(torch.float64)
    for real in batches(8, 1, torch.float64)[:3]:
        d = theirs.discriminator
        fake = theirs.generator(noises[1](len(real))).detach()
        of_real, of_fake = d(real), d(fake)
        lecam = penalty(of_real, of_fake)
        loss = gk.LogisticLoss().discriminator(of_real, of_fake)
        wanted = torch.autograd.grad(loss + 0.6 * lecam, list(d.parameters()))
        got = step(ours, gk.LogisticLoss(), real, noises[0], config)
        torch.testing.assert_close(got["lecam"], lecam.detach(), rtol=1e-9, atol=0)
        torch.testing.assert_close(got["d_loss"], loss.detach(), rtol=1e-9, atol=0)
        expected = dict(zip((n for n, _ in d.named_parameters("d")), wanted, strict=True))
        assert_same_gradients(of_d(gradients(ours)), expected, rtol=1e-9)
        for name in ("generator", "discriminator"):
            getattr(theirs, name).load_state_dict(getattr(ours, name).state_dict())
        if step is alternating_step:
            noises[1](len(real))
    assert ours.lecam.updates == 3
    ours.lecam = None
    with pytest.raises(ValueError, match=r"lecam needs Players\(..., lecam=LeCamPenalty\(\)\)"):
        step(ours, gk.LogisticLoss(), real, noises[0], config)


@pytest.mark.parametrize("name", ["r2_gamma", "lecam"])
@pytest.mark.parametrize("step", [reversal_step, ratio_step])
def test_steps_that_hand_ds_gradient_on_refuse_penalties_of_d_alone(
    step: Callable[..., dict[str, Tensor]], name: str
) -> None:
    config = StepConfig(**{name: 0.5})  # type: ignore[arg-type]
    ours, _ = twins(smooth_pair, config=config)
    with pytest.raises(ValueError, match=f"{name} must be 0 in a (reversal|ratio) step.* got 0.5"):
        step(ours, gk.LogisticLoss(), batches(8, 1)[0], noise_source(), config)


@pytest.mark.parametrize("step", [alternating_step, one_pass_step])
def test_bf16_is_autocast_of_the_networks_alone(step: Callable[..., dict[str, Tensor]]) -> None:
    config = StepConfig(amp="bf16")
    ours, theirs = twins(smooth_pair)
    real = batches(8, 1)[0]
    got = step(ours, gk.LogisticLoss(), real, noise_source(), config)
    assert got["d_loss"].dtype == torch.float32
    noise = noise_source()
    with torch.autocast("cpu", torch.bfloat16):
        fake = theirs.generator(noise(len(real))).detach()
        logits = theirs.discriminator(real), theirs.discriminator(fake)
    assert logits[0].dtype == torch.bfloat16
    gk.LogisticLoss().discriminator(*(x.float() for x in logits)).backward()
    expected = {n: p.grad for n, p in theirs.discriminator.named_parameters("d")}
    found = {n: g for n, g in gradients(ours).items() if n.startswith("d.")}
    assert_same_gradients(found, expected, rtol=1e-6)


def test_fp16_loss_scale_keeps_small_gradients_and_skips_overflows() -> None:
    config = StepConfig(amp="fp16")
    ours, exact = twins(smooth_pair, config=config)
    exact.scaler = None
    real = batches(8, 1)[0]
    alternating_step(exact, gk.LogisticLoss(), real, noise_source(), StepConfig())
    alternating_step(ours, gk.LogisticLoss(), real, noise_source(), config)
    assert_same_gradients(gradients(ours), gradients(exact), rtol=2e-2)
    overflowing, _ = twins(smooth_pair, config=config)
    overflowing.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = copy.deepcopy(overflowing.generator.state_dict())
    got = alternating_step(overflowing, gk.LogisticLoss(), real, noise_source(), config)
    after = overflowing.generator.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert not got["g_grad_norm"].isfinite()
    assert got["g_loss"].isfinite()
    assert overflowing.scaler.get_scale() < 2.0**60


@pytest.mark.parametrize("step", [alternating_step, one_pass_step])
def test_compiled_networks_learn_the_same(step: Callable[..., dict[str, Tensor]]) -> None:
    def pair() -> tuple[nn.Module, nn.Module]:
        return nn.Linear(NOISE, 3), nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

    torch.manual_seed(0)
    networks = pair()
    config = StepConfig(compile=True)
    ours = players(copy.deepcopy(networks), config)
    theirs = players(copy.deepcopy(networks))
    noises = noise_source(), noise_source()
    for i in range(2):
        real = torch.randn(BATCH, 3, generator=torch.Generator().manual_seed(i))
        step(ours, gk.LogisticLoss(), real, noises[0], config)
        step(theirs, gk.LogisticLoss(), real, noises[1])
    assert_same(ours, theirs, rtol=1e-4)


@every_step
def test_nothing_comes_to_the_host(
    step: Callable[..., dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics are 0-dim tensors, and no step asks for a number."""
    ours, _ = twins(smooth_pair)
    real = batches(8, 1)[0]

    def refuse(*_: object) -> None:
        raise AssertionError("a step waited for the device")

    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "numpy"):
        monkeypatch.setattr(Tensor, name, refuse)
    got = step(ours, gk.LogisticLoss(), real, noise_source())
    monkeypatch.undo()
    assert set(got) == {"d_loss", "g_loss", "d_grad_norm", "g_grad_norm"}
    assert all(v.dim() == 0 and not v.requires_grad for v in got.values())


def test_weights_learn_again_after_an_error_in_the_generator_phase() -> None:
    ours, _ = twins(smooth_pair)

    class Broken(gk.LogisticLoss):
        def generator_value_and_grad(self, *_: object, **__: object):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        alternating_step(ours, Broken(), batches(8, 1)[0], noise_source())
    assert all(p.requires_grad for p in ours.discriminator.parameters())


def test_a_frozen_layer_stays_frozen() -> None:
    ours, _ = twins(smooth_pair)
    ours.discriminator[0].requires_grad_(False)
    before = ours.discriminator[0].weight.clone()
    for step in ALL_STEPS.values():
        step(ours, gk.LogisticLoss(), batches(8, 1)[0], noise_source())
    assert torch.equal(ours.discriminator[0].weight, before)
    assert not ours.discriminator[0].weight.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "both"}, "order must be one of"),
        ({"amp": "fp8"}, "amp must be one of"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"g_updates": 0}, "g_updates must be at least 1"),
        ({"clip": -1.0}, "clip must be positive"),
        ({"r1_gamma": float("nan")}, "r1_gamma must be finite"),
        ({"compile": True, "r1_gamma": 1.0}, "double backward"),
        ({"compile": True, "r2_gamma": 1.0}, "r2_gamma needs double backward"),
        ({"r2_gamma": -1.0}, "r2_gamma must be at least 0"),
        ({"lecam": float("nan")}, "lecam must be finite"),
        ({"optimizer": "sgd"}, "optimizer must be one of"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StepConfig(**options)  # type: ignore[arg-type]
