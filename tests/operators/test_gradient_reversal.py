"""Gradient reversal and scaling: the numbers of the plain layer, and nobody's tensors overwritten."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import gankernels as gk
from gankernels import reference
from gankernels.testing import gradient_scale_counts

Layer = Callable[[Tensor], Tensor]
compiled = pytest.mark.skipif(
    not gk.build_info()["extension"], reason="counts paths of the compiled layer: no extension"
)


class Plain(torch.autograd.Function):
    """The layer as everyone writes it, with a copy instead of a view: always right, always allocates."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        return -grads[0]


def assert_like_plain(run: Callable[[Layer], list[Tensor]]) -> None:
    """`run(layer)` builds a graph through the layer and returns all that a caller can see."""
    for ours, plain in zip(run(gk.gradient_reversal), run(Plain.apply), strict=True):
        assert torch.equal(ours, plain)


def counted(run: Callable[[], object]) -> tuple[int, int]:
    before = gradient_scale_counts()
    run()
    after = gradient_scale_counts()
    return after.in_place - before.in_place, after.allocated - before.allocated


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)


@compiled
def test_conv_chain_negates_in_place() -> None:
    generator, discriminator = networks()
    x = torch.randn(2, 3, 8, 8)
    loss = discriminator(gk.gradient_reversal(generator(x))).square().sum()
    assert counted(loss.backward) == (1, 0)


SHAPE = (64, 3, 64, 64)


def allocated(layer: Callable[[Tensor], Tensor]) -> int:
    """Bytes that operators allocate in a forward and a backward pass through a layer."""
    x = torch.randn(SHAPE)
    with torch.profiler.profile(profile_memory=True) as profile:
        (layer(x.requires_grad_() * 2) * 3).sum().backward()
    return sum(max(0, event.self_cpu_memory_usage) for event in profile.events())


@compiled
@pytest.mark.processes
def test_in_place_path_allocates_the_forward_copy_alone() -> None:
    """In a new process: in one that has run for long, the profiler now and then records nothing."""
    code = (
        "import gankernels as gk; from test_gradient_reversal import Plain, allocated\n"
        "print(*map(allocated, (lambda y: y, gk.gradient_reversal, Plain.apply)))"
    )
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=here,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (here.parents[1], here.parent)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    none, ours, plain = map(int, done.stdout.split())
    one = math.prod(SHAPE) * 4
    assert none > 0
    assert one <= ours - none < 2 * one
    assert plain - none >= 2 * one  # its gradient too


def test_conv_chain_numbers() -> None:
    def run(layer: Layer) -> list[Tensor]:
        generator, discriminator = networks()
        torch.manual_seed(1)
        x = torch.randn(2, 3, 8, 8)
        discriminator(layer(generator(x))).square().sum().backward()
        return [p.grad for m in (generator, discriminator) for p in m.parameters()]

    assert_like_plain(run)


@compiled
def test_sum_of_a_branch_and_its_reversal_shares_one_gradient() -> None:
    a = torch.randn(5, requires_grad=True)
    b = torch.randn(5, requires_grad=True)
    c = torch.randn(5)
    loss = ((a + gk.gradient_reversal(b * 1)) * c).sum()
    loss.backward()
    assert torch.equal(a.grad, c)
    assert torch.equal(b.grad, -c)


def test_sum_with_the_same_leaf() -> None:
    def run(layer: Layer) -> list[Tensor]:
        a = torch.ones(4, requires_grad=True)
        h = a * 2
        ((h + layer(h)) * torch.arange(4.0)).sum().backward()
        return [a.grad]

    assert_like_plain(run)


@compiled
def test_expanded_gradient_allocates() -> None:
    x = torch.randn(4, 4, requires_grad=True)
    loss = gk.gradient_reversal(x * 1).sum()  # the gradient of sum is an expanded scalar
    assert counted(loss.backward) == (0, 1)
    assert torch.equal(x.grad, -torch.ones(4, 4))


@compiled
def test_hook_that_keeps_the_gradient() -> None:
    kept: list[Tensor] = []
    x = torch.randn(3, requires_grad=True)
    y = gk.gradient_reversal(x * 1)
    y.register_hook(kept.append)
    loss = (y * torch.tensor([1.0, 2.0, 3.0])).sum()
    assert counted(loss.backward) == (0, 1)
    assert torch.equal(kept[0], torch.tensor([1.0, 2.0, 3.0]))
    assert torch.equal(x.grad, -kept[0])


def test_retain_grad() -> None:
    x = torch.randn(3, requires_grad=True)
    y = gk.gradient_reversal(x * 1)
    y.retain_grad()
    loss = (y * torch.tensor([1.0, 2.0, 3.0])).sum()
    loss.backward()
    assert torch.equal(y.grad, torch.tensor([1.0, 2.0, 3.0]))
    assert torch.equal(x.grad, -y.grad)


@compiled
@pytest.mark.parametrize("through", ["backward", "autograd.grad"])
def test_gradient_given_by_the_caller(through: str) -> None:
    x = torch.randn(3, requires_grad=True)
    y = gk.gradient_reversal(x * 1)
    g = torch.tensor([1.0, -2.0, 3.0])
    before = g.clone()
    if through == "backward":
        assert counted(lambda: y.backward(gradient=g)) == (0, 1)
        got = x.grad
    else:
        (got,) = torch.autograd.grad(y, x, grad_outputs=g)
    assert torch.equal(g, before)
    assert torch.equal(got, -before)


def test_retain_graph_twice() -> None:
    def run(layer: Layer) -> list[Tensor]:
        torch.manual_seed(0)
        x = torch.randn(2, 3, 8, 8, requires_grad=True)
        generator, discriminator = networks()
        loss = discriminator(layer(generator(x))).square().sum()
        first = torch.autograd.grad(loss, x, retain_graph=True)
        second = torch.autograd.grad(loss, x)
        return [*first, *second]

    assert_like_plain(run)


def test_two_reversals_in_a_row_are_the_identity() -> None:
    x = torch.randn(3, requires_grad=True)
    y = gk.gradient_reversal(gk.gradient_reversal(x * 1, 2.0), 3.0)
    (y * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert torch.equal(x.grad, 6 * torch.tensor([1.0, 2.0, 3.0]))


def test_leaf_input() -> None:
    x = torch.randn(3, requires_grad=True)
    y = gk.gradient_reversal(x)
    assert torch.equal(y, x)
    (y * 2).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), -2.0))


def test_sparse_gradient() -> None:
    embedding = nn.Embedding(5, 2, sparse=True)
    weight = gk.gradient_reversal(embedding.weight)
    torch.nn.functional.embedding(torch.tensor([1, 3]), weight, sparse=True).sum().backward()
    expected = torch.zeros(5, 2)
    expected[[1, 3]] = -1
    assert embedding.weight.grad.is_sparse
    assert torch.equal(embedding.weight.grad.to_dense(), expected)


@pytest.mark.parametrize("alpha", [0.5, torch.tensor(0.5, dtype=torch.float64)])
def test_double_backward_multiplies_by_alpha_each_time(alpha: float | Tensor) -> None:
    x = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(gk.gradient_reversal(x, alpha).pow(3), x, create_graph=True)
    assert first.item() == -0.5 * 3 * 4
    # d/dx of -alpha 3 R(x)^2, through R once more.
    (second,) = torch.autograd.grad(first, x)
    assert second.item() == 0.25 * 6 * 2


def test_alpha_zero_gives_zeros() -> None:
    x = torch.randn(3, requires_grad=True)
    gk.gradient_reversal(x, 0.0).square().sum().backward()
    assert torch.equal(x.grad, torch.zeros(3))


def test_alpha_as_a_tensor() -> None:
    x = torch.randn(3, dtype=torch.bfloat16, requires_grad=True)
    gk.gradient_reversal(x, torch.tensor(0.25)).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), -0.25, dtype=torch.bfloat16))


def test_in_place_layer_may_follow() -> None:
    x = torch.randn(2, 3, 4, 4)
    conv = nn.Conv2d(3, 3, 1)
    hidden = conv(x)
    before = hidden.detach().clone()
    nn.ReLU(inplace=True)(gk.gradient_reversal(hidden)).sum().backward()
    assert torch.equal(hidden.detach(), before)  # the input is not written through
    mask = (before > 0).float()
    assert torch.allclose(conv.bias.grad, -mask.sum((0, 2, 3)))


def test_input_written_after_the_layer_leaves_the_output() -> None:
    x = torch.ones(3)
    y = gk.gradient_reversal(x)
    x.zero_()
    assert torch.equal(y, torch.ones(3))


def test_channels_last_is_kept() -> None:
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert gk.gradient_reversal(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.dynamo
def test_under_compile() -> None:
    x = torch.randn(4, 4, requires_grad=True)
    compiled_layer = torch.compile(
        lambda t: gk.gradient_reversal(t * 2, 0.5) * 3, fullgraph=True, backend="aot_eager"
    )
    (g,) = torch.autograd.grad(compiled_layer(x).sum(), x)
    assert torch.equal(g, torch.full((4, 4), -3.0))


def test_under_torch_func() -> None:
    x = torch.randn(4)
    g = torch.func.grad(lambda t: gk.gradient_reversal(t).square().sum())(x)
    assert torch.equal(g, -2 * x)
    per_sample = torch.func.vmap(torch.func.grad(lambda t: gk.gradient_reversal(t).square().sum()))
    assert torch.equal(per_sample(x.reshape(4, 1)), -2 * x.reshape(4, 1))


def test_under_autocast_and_scaling() -> None:
    linear = nn.Linear(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = gk.gradient_reversal(linear(torch.randn(2, 4)))
    assert y.dtype == torch.bfloat16
    (y.float().sum() * 65536).backward()
    assert torch.equal(linear.bias.grad, torch.full((4,), -2.0 * 65536))


# ---- random graphs -------------------------------------------------------------------------------

OPERATIONS = st.lists(
    st.tuples(st.sampled_from("asmrhkc"), st.integers(0, 100), st.integers(0, 100)),
    min_size=1,
    max_size=12,
)


def random_graph(layer: Layer, operations: list[tuple[str, int, int]]) -> list[Tensor]:
    """Builds a graph that shares gradients in every way there is; returns all that can be seen."""
    torch.manual_seed(0)
    leaf = torch.randn(3, 4, requires_grad=True)
    given_gradient = torch.randn(3, 4)
    nodes, seen = [leaf], []
    for kind, i, j in operations:
        a, b = nodes[i % len(nodes)], nodes[j % len(nodes)]
        if kind == "a":
            nodes.append(a + b)  # one gradient for two branches
        elif kind == "s":
            nodes.append(a.t().contiguous().t() - b)
        elif kind == "m":
            nodes.append(a * torch.sigmoid(b))
        elif kind in "rk":
            nodes.append(layer(a))
            if kind == "k" and not nodes[-1].is_leaf:
                nodes[-1].retain_grad()
                seen.append(nodes[-1])
        elif kind == "h":
            kept = a * 1
            kept.register_hook(lambda g: seen.append(g))
            nodes.append(kept)
        else:
            nodes.append(a.clone())
    total = nodes[-1] + sum(nodes[1:-1], torch.zeros(3, 4))
    total.backward(gradient=given_gradient, retain_graph=True)
    total.backward(gradient=given_gradient)
    grads = [s.grad if s.requires_grad and s.grad is not None else s for s in seen]
    return [leaf.grad, given_gradient, *(g.detach() for g in grads)]


@settings(max_examples=150, deadline=None)
@given(OPERATIONS)
def test_random_graphs_with_shared_gradients(operations: list[tuple[str, int, int]]) -> None:
    ours = random_graph(gk.gradient_reversal, operations)
    plain = random_graph(Plain.apply, operations)
    assert len(ours) == len(plain)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


# ---- gradient_scale and the deferred factor ------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [2.0, torch.tensor(-0.5), torch.tensor([1.0, 0.0, -4.0])])
def test_gradient_scale_equals_the_reference(dtype: torch.dtype, scale: float | Tensor) -> None:
    x = torch.randn(3, 2, 2).to(dtype)
    grads = []
    for function in (gk.gradient_scale, reference.gradient_scale):
        leaf = x.clone().requires_grad_()
        (function(leaf * 1, scale) * 3).sum().backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads)


def test_deferred_scale_gives_the_non_saturating_gradient() -> None:
    torch.manual_seed(0)
    generator, discriminator = nn.Linear(4, 6).double(), nn.Linear(6, 1).double()
    z, real = torch.randn(5, 4).double(), torch.randn(5, 6).double()
    factor = gk.DeferredGradientScale()
    logits = discriminator(factor(generator(z))).squeeze(1)
    factor.set(gk.nonsaturating_ratio(logits))
    gk.logistic_d_loss(discriminator(real).squeeze(1), logits).backward()
    expected_d = torch.autograd.grad(
        reference.logistic_d_loss(
            discriminator(real).squeeze(1), discriminator(generator(z).detach()).squeeze(1)
        ),
        discriminator.parameters(),
    )
    expected_g = torch.autograd.grad(
        reference.nonsaturating_g_loss(discriminator(generator(z)).squeeze(1)),
        generator.parameters(),
    )
    for p, g in zip(
        [*discriminator.parameters(), *generator.parameters()],
        expected_d + expected_g,
        strict=True,
    ):
        torch.testing.assert_close(p.grad, g, rtol=1e-12, atol=1e-14)


def test_deferred_scales_of_two_models_do_not_meet() -> None:
    x, y = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    first, second = gk.DeferredGradientScale(), gk.DeferredGradientScale()
    loss = first(x * 1).sum() + second(y * 1).sum()
    second.set(torch.tensor([3.0, 4.0]))
    first.set(torch.tensor(2.0))
    loss.backward()
    assert x.grad.tolist() == [2.0, 2.0]
    assert y.grad.tolist() == [3.0, 4.0]


def test_deferred_scale_complains_of_misuse() -> None:
    x = torch.ones(2, requires_grad=True)
    factor = gk.DeferredGradientScale()
    y = factor(x * 1)
    with pytest.raises(RuntimeError, match="before set"):
        y.sum().backward()
    with pytest.raises(RuntimeError, match="one forward pass"):
        factor(x)


@pytest.mark.parametrize(
    ("dtype", "logit"), [(torch.float32, 200.0), (torch.float16, 30.0), (torch.bfloat16, 200.0)]
)
def test_one_pass_ratio_stays_finite(dtype: torch.dtype, logit: float) -> None:
    images = torch.ones(2, 3, dtype=dtype, requires_grad=True)
    factor = gk.DeferredGradientScale()
    logits = factor(images * 1).sum(1) * torch.tensor([logit / 3, -logit / 3], dtype=dtype)
    factor.set(gk.nonsaturating_ratio(logits))
    gk.logistic_d_loss(logits.detach(), logits).backward()
    assert images.grad.isfinite().all()


def test_ratio_wants_one_logit_per_sample() -> None:
    with pytest.raises(
        ValueError, match=r"fake_logits must have one logit per sample.*\[2, 1, 4, 4\]"
    ):
        gk.nonsaturating_ratio(torch.zeros(2, 1, 4, 4))
    assert gk.nonsaturating_ratio(torch.zeros(2, 1)).tolist() == [-1.0, -1.0]


# ---- the modules ---------------------------------------------------------------------------------


def test_schedule_follows_ganin_and_survives_a_state_dict() -> None:
    layer = gk.GradientReversal(2.0, schedule="ganin", steps=10)
    assert layer.current_alpha.item() == 0.0
    layer.advance(5)
    assert layer.current_alpha.item() == pytest.approx(2.0 * (2 / (1 + 2.718281828459045**-5) - 1))
    resumed = gk.GradientReversal(2.0, schedule="ganin", steps=10)
    resumed.load_state_dict(layer.state_dict())
    layer.advance()
    resumed.advance()
    assert layer.current_alpha.item() == resumed.current_alpha.item()
    assert resumed.step.item() == 6
    resumed.advance(100)
    assert resumed.current_alpha.item() == pytest.approx(
        2.0 * (2 / (1 + 2.718281828459045**-10) - 1)
    )


def test_schedule_advanced_before_the_backward_pass_changes_only_the_next_step() -> None:
    layer = gk.GradientReversal(1.0, schedule="linear", steps=2)
    layer.advance()
    x = torch.ones(1, requires_grad=True)
    y = layer(x)
    layer.advance()
    y.backward()
    assert x.grad.item() == -0.5


def strength(layer: nn.Module) -> float:
    """What one forward and backward pass multiplies by, with the sign turned."""
    x = torch.ones((), requires_grad=True)
    return -torch.autograd.grad(layer(x), x)[0].item()


def test_warm_start_is_the_formula_of_transfer_learning_code() -> None:
    slope, lo, hi, steps = 1.0, 0.1, 0.7, 8
    layer = gk.GradientReversal(
        schedule="ganin", steps=steps, slope=slope, lo=lo, hi=hi, auto_step=True, clamp=False
    )
    for i in range(3 * steps):  # it goes on after steps, as the original does
        expected = 2 * (hi - lo) / (1 + math.exp(-slope * i / steps)) - (hi - lo) + lo
        assert strength(layer) == pytest.approx(expected, rel=1e-6)
    assert layer.step == 3 * steps


def test_the_strength_is_right_near_the_start() -> None:
    layer = gk.GradientReversal(schedule="ganin", steps=10**6, slope=1.0)
    layer.advance()
    assert strength(layer) == pytest.approx(math.tanh(0.5e-6), rel=1e-6)


def test_linear_has_both_ends_and_a_factor() -> None:
    layer = gk.GradientReversal(3.0, schedule="linear", steps=4, lo=0.5, hi=-0.5, auto_step=True)
    assert [strength(layer) for _ in range(7)] == [1.5, 0.75, 0.0, -0.75, -1.5, -1.5, -1.5]


def test_auto_step_counts_training_passes_alone_and_resumes() -> None:
    options = {"schedule": "linear", "steps": 4, "auto_step": True}
    layer, resumed = gk.GradientReversal(**options), gk.GradientReversal(**options)
    strength(layer)
    layer.eval()
    assert [strength(layer), strength(layer)] == [0.25, 0.25]
    resumed.load_state_dict(layer.state_dict())
    assert [strength(resumed), strength(resumed)] == [0.25, 0.5]
    manual = gk.GradientReversal(schedule="linear", steps=4)
    assert [strength(manual), strength(manual)] == [0.0, 0.0]


def test_auto_step_before_the_backward_pass_changes_only_the_next_step() -> None:
    layer = gk.GradientReversal(schedule="linear", steps=2, auto_step=True, lo=0.25)
    x = torch.ones(1, requires_grad=True)
    first, second = layer(x), layer(x)
    assert torch.autograd.grad(first, x)[0].item() == -0.25
    assert torch.autograd.grad(second, x)[0].item() == -0.625


@pytest.mark.dynamo
def test_auto_step_counts_in_a_compiled_call() -> None:
    layer = gk.GradientReversal(schedule="linear", steps=4, auto_step=True)
    compiled = torch.compile(layer, backend="aot_eager")
    assert [strength(compiled) for _ in range(3)] == [0.0, 0.25, 0.5]


def test_options_of_the_schedule_are_shown() -> None:
    layer = gk.GradientReversal(schedule="ganin", steps=8, slope=1, clamp=False)
    assert repr(layer) == (
        "GradientReversal(alpha=1.0, schedule='ganin', steps=8, slope=1.0, clamp=False)"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": float("nan")}, "alpha must be finite, got nan"),
        ({"schedule": "cosine"}, "schedule must be one of .* got 'cosine'"),
        ({"schedule": "linear"}, "steps must be at least 1 for schedule 'linear', got None"),
        ({"lo": 0.5}, "lo has no effect: schedule 'constant' has none, got 0.5"),
        ({"auto_step": True}, "auto_step has no effect: schedule 'constant' has none"),
        ({"clamp": False}, "clamp has no effect: schedule 'constant' has none, got False"),
        (
            {"schedule": "linear", "steps": 2, "slope": 1.0},
            "slope has no effect: schedule 'linear' has none, got 1.0",
        ),
        ({"schedule": "ganin", "steps": 2, "hi": float("inf")}, "hi must be finite, got inf"),
    ],
)
def test_module_refuses_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gk.GradientReversal(**arguments)  # type: ignore[arg-type]


def test_feature_resampling_draws_only_where_it_should() -> None:
    statistics = torch.cat([torch.arange(6.0).reshape(2, 3), torch.zeros(2, 3)], 1)
    mean = statistics[:, :3]
    draw = [
        gk.FeatureResampling(generator=torch.Generator().manual_seed(1))(statistics) for _ in "ab"
    ]
    assert torch.equal(*draw)
    assert not torch.equal(draw[0], mean)
    assert torch.equal(gk.FeatureResampling().eval()(statistics), mean)
    official = gk.FeatureResampling(resample_in_eval=True).eval()
    assert not torch.equal(official(statistics), mean)
