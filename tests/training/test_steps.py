"""The steps against the articles' own loops, written out plainly in `benchmarks.article_loops`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import gankernels as gk
from benchmarks.article_loops import first_article, second_article, third_article
from gankernels.training import (
    Players,
    StepConfig,
    alternating_step,
    one_pass_step,
    ratio_step,
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
from gankernels.training.players import adam, grad_scaler, prepare

BATCH, NOISE, STEPS = 8, 6, 5
ANCHORS = gk.anchors.article(20, seed=0)


def players(
    networks: tuple[nn.Module, nn.Module],
    config: StepConfig | None = None,
    dtype: torch.dtype = torch.float32,
    shared: bool = False,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.5, 0.9),
) -> Players:
    config = config or StepConfig()
    generator, discriminator = (prepare(n.to(dtype), config) for n in networks)
    of_g, of_d = list(generator.parameters()), list(discriminator.parameters())
    if shared:
        g_optimizer = d_optimizer = adam(of_g + of_d, lr, betas, config)
    else:
        g_optimizer, d_optimizer = (adam(p, lr, betas, config) for p in (of_g, of_d))
    scaler = grad_scaler(config, torch.device("cpu"))
    return Players(generator, discriminator, g_optimizer, d_optimizer, scaler)


def twins(build: Callable[[], tuple[nn.Module, nn.Module]], **options: object) -> list[Players]:
    torch.manual_seed(0)
    networks = build()
    return [players(copy.deepcopy(networks), **options) for _ in range(2)]  # type: ignore[arg-type]


def batches(size: int, channels: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (BATCH, channels, size, size)
    made = [torch.rand(shape, generator=generator, dtype=dtype) for _ in range(STEPS)]
    return [b.contiguous(memory_format=torch.channels_last) for b in made]


def noise_source(dtype: torch.dtype = torch.float32, seed: int = 2) -> Callable[[int], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda n: torch.randn(n, NOISE, generator=generator, dtype=dtype)


def state(p: Players) -> dict[str, Tensor]:
    """Parameters, buffers and optimizer states of both players by name."""
    found: dict[str, Tensor] = {}
    for name in ("generator", "discriminator"):
        found |= {f"{name}.{k}": v for k, v in getattr(p, name).state_dict().items()}
    for name in ("g_optimizer", "d_optimizer"):
        for index, of in getattr(p, name).state_dict()["state"].items():
            found |= {f"{name}.{index}.{k}": v for k, v in of.items()}
    return found


def assert_same(ours: Players, theirs: Players, rtol: float = 0.0) -> None:
    a, b = state(ours), state(theirs)
    assert a.keys() == b.keys()
    assert a
    for name in a:
        scale = float(b[name].double().abs().max())
        torch.testing.assert_close(
            a[name], b[name], rtol=rtol, atol=rtol * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


# In float64 the losses' arithmetic differs from the articles' by rounding alone.
EXACT = {"dtype": torch.float64}


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


# ------------------------------------------------------------------------------ one-pass steps


def gradients(p: Players) -> dict[str, Tensor]:
    named = [*p.generator.named_parameters("g"), *p.discriminator.named_parameters("d")]
    return {n: x.grad for n, x in named if x.grad is not None}


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


def assert_same_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor], rtol: float) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        scale = float(theirs[name].abs().max())
        torch.testing.assert_close(
            ours[name],
            theirs[name],
            rtol=rtol,
            atol=rtol * scale,
            msg=lambda m, n=name: f"{n}: {m}",
        )


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


# ------------------------------------------------------------------------------------ options

ALL_STEPS = {
    "alternating": alternating_step,
    "reversal": reversal_step,
    "one_pass": one_pass_step,
    "ratio": ratio_step,
}
every_step = pytest.mark.parametrize("step", ALL_STEPS.values(), ids=ALL_STEPS.keys())


def smooth_pair() -> tuple[nn.Module, nn.Module]:
    """No batch statistics, no dropout, and a second derivative that is not zero."""
    generator = nn.Sequential(nn.Linear(NOISE, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    discriminator = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(64, 1)
    )
    return generator, discriminator


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
        ({"r1_gamma": float("nan")}, "r1_gamma must be at least 0"),
        ({"compile": True, "r1_gamma": 1.0}, "double backward"),
        ({"optimizer": "sgd"}, "optimizer must be one of"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StepConfig(**options)  # type: ignore[arg-type]
