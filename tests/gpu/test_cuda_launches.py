"""What the CUDA launchers launch: how often, how wide, how large a grid, how many bytes; always the same bits."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

pytest.importorskip("triton", minversion="3.4", reason="the emulation needs triton")

import gankernels as gk
from gankernels._scalar_run import terms_against_means, terms_of
from gankernels.reference import accumulation_dtype
from gpu.cuda import build, emulated
from tools.ptxsim.occupancy import occupancy

pytestmark = [
    pytest.mark.emulated,
    pytest.mark.skipif(emulated.skip_reason is not None, reason=str(emulated.skip_reason)),
    pytest.mark.compiled,
]


@pytest.fixture(autouse=True)
def _recorded() -> None:
    """From here on it is known where each tensor's memory ends."""
    emulated.library()


MEAN = 1
PARTIALS = 8 + 8 + 4  # of each block: its sum, written and read by the last one, and its ticket
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def moved(launch: emulated.Launch, kind: str) -> int:
    return int(launch.result.stats[f"global_{kind}_bytes"])


def blocks(launch: emulated.Launch) -> int:
    return launch.grid[0] * launch.grid[1] * launch.grid[2]


def values_of_a_thread(launch: emulated.Launch) -> int:
    """Of a row that lies in registers."""
    found = re.search(r"(\d+), \d+> >$", launch.kernel)
    assert found is not None, launch.kernel
    return int(found[1])


def size(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def d_loss(real: Tensor, fake: Tensor, anchor: Tensor, reduction: int = MEAN) -> tuple[Tensor, ...]:
    return emulated.operator("realness_d_loss_value_and_grad")(
        real, fake, anchor, anchor, 1, reduction, True, True, True, 1.0
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(16, 64), (24, 1024)], ids=str)
def test_bytes_are_the_ideal_ones(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Each logit read once, each gradient written once, an anchor once a block, all 16 bytes at a time."""
    real, fake = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    anchor = torch.softmax(torch.randn(shape[1]), 0).to(dtype)
    with emulated.launches(90) as found:
        loss, g_real, g_fake = d_loss(real, fake, anchor)
    (launch,) = found
    n = blocks(launch)
    rows_of_a_block = launch.block[0] * values_of_a_thread(launch) // shape[1]
    of_anchor = size(anchor) * n * rows_of_a_block  # each group of threads holds it in registers
    sums = PARTIALS * n if n > 1 else 0
    assert moved(launch, "load") == size(real, fake) + of_anchor + (8 * n if n > 1 else 0)
    assert moved(launch, "store") == size(g_real, g_fake, loss) + (8 * n if n > 1 else 0)
    assert moved(launch, "atomic") == (4 * n if n > 1 else 0)
    assert sums == 20 * n * (n > 1)
    vectorized = launch.result.stats["global_load_128b_threads"] * 16
    assert vectorized == size(real, fake) + of_anchor


@pytest.mark.parametrize("shape", [(32, 5), (9, 51), (3, 20, 4, 8)], ids=str)
def test_bytes_of_narrow_rows_and_rows_side_by_side(shape: tuple[int, ...]) -> None:
    logits = torch.randn(shape)
    with emulated.launches(90) as found:
        loss, _, grad = emulated.operator("softmax_kl_logits_value_and_grad")(
            logits, logits, 1, MEAN, False, True, True, 1.0
        )
    (launch,) = found
    n = blocks(launch)
    assert moved(launch, "load") == size(logits, logits) + (8 * n if n > 1 else 0)
    assert moved(launch, "store") == size(grad, loss) + (8 * n if n > 1 else 0)


def test_rows_side_by_side_are_read_coalesced() -> None:
    """32 neighbouring positions of a class are one access of 128 bytes."""
    logits = torch.randn(2, 20, 8, 8)
    anchor = torch.softmax(torch.randn(20), 0)
    with emulated.launches(90) as found:
        d_loss(logits, logits, anchor)
    stats = found[0].result.stats
    sectors = stats["global_load_sectors"] + stats["global_store_sectors"]
    assert "Stacked" in found[0].kernel
    # Beside the logits and gradients: the anchor, the same address for all lanes, and the sums.
    assert sectors <= 4 * size(logits) // 32 + 20 * 4 * blocks(found[0]) * 2


@pytest.mark.parametrize("classes", [4099, 8200])
def test_streamed_logits_are_read_twice(classes: int) -> None:
    logits = torch.randn(2, classes)
    with emulated.launches(90) as found:
        emulated.operator("softmax_kl_logits_value_and_grad")(
            logits, logits, 1, 0, False, True, True, 1.0
        )
    assert moved(found[0], "load") == 4 * size(logits)


@pytest.mark.parametrize(("classes", "readings"), [(64, 1), (4099, 3), (8200, 3)])
def test_a_mixture_is_one_launch(classes: int, readings: int) -> None:
    """Of logits read once where a row stays in registers, or three times; gradients are written once."""
    p, q = torch.randn(2, 2, classes)
    with emulated.launches(90) as found:
        loss, *gradients = emulated.operator("js_divergence_value_and_grad")(
            p, q, 0.3, 1, 0, True, True, True, 1.0
        )
    (launch,) = found
    assert moved(launch, "load") == readings * size(p, q)
    assert moved(launch, "store") == size(loss, *gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_of_8192_classes_are_read_once(dtype: torch.dtype) -> None:
    logits = torch.randn(1, 8192).to(dtype)
    for p_grad in (False, True):
        with emulated.launches(90) as found:
            emulated.operator("softmax_kl_logits_value_and_grad")(
                logits, logits, 1, 0, p_grad, True, True, 1.0
            )
        assert moved(found[0], "load") == 2 * size(logits)


def test_a_step_launches_once_forward_and_once_backward() -> None:
    real, fake = (torch.randn(12, 20, requires_grad=True) for _ in range(2))
    anchor = torch.softmax(torch.randn(20), 0)
    with emulated.launches(90) as found, emulated.Redirected():
        loss = gk.realness_d_loss(real, fake, anchor, anchor)
        assert len(found) == 1
        loss.backward()
    # On CPU tensors each gradient is scaled alone; on a GPU scale_gradients does both, as the next test shows.
    assert [launch.kernel.split("<")[0] for launch in found] == [
        "divergence_kernel",
        *["scale_kernel"] * 2,
    ]


@pytest.mark.parametrize("per_row", [False, True])
def test_both_gradients_in_one_launch(per_row: bool) -> None:
    first, second = torch.randn(12, 20, 3), torch.randn(12, 20, 3)
    grad_output = torch.randn(12, 3) if per_row else torch.tensor(0.5)
    with emulated.launches(90) as found:
        got = emulated.operator("scale_gradients")(first, second, grad_output, 1, 4, -1)
    assert len(found) == 1
    factor = grad_output.unsqueeze(1) if per_row else grad_output
    torch.testing.assert_close(got[0], first * factor / 4)
    torch.testing.assert_close(got[1], second * factor)


def test_value_and_grad_needs_no_second_launch() -> None:
    real, fake = torch.randn(12, 20), torch.randn(12, 20)
    anchor = torch.softmax(torch.randn(20), 0)
    with emulated.launches(90) as found, emulated.Redirected():
        gk.value_and_grad(gk.realness_d_loss)(real, fake, anchor, anchor)
    assert len(found) == 1


@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("shape", [(0, 20), (0, 8, 3), (2, 5, 0)], ids=str)
def test_empty_batches(shape: tuple[int, ...], reduction: int) -> None:
    """A grid has a block even where there is no row: the mean of nothing is NaN, as on the CPU."""
    real = torch.randn(shape)
    anchor = torch.softmax(torch.randn(shape[1]), 0)
    with emulated.launches(90):
        got = d_loss(real, real, anchor, reduction)
    exact = torch.ops.gankernels.realness_d_loss_value_and_grad(
        real, real, anchor, anchor, 1, reduction, True, True, True, 1.0
    )
    torch.testing.assert_close(got, exact, equal_nan=True)


def test_empty_elementwise_operators_launch_nothing() -> None:
    empty = torch.empty(0, 6)
    with emulated.launches(90) as found:
        z = emulated.operator("resample_forward")(empty, empty[:, :3], 1)
        scaled = emulated.operator("scale_gradient")(empty, torch.tensor(1.0), 1, -1)
    assert (z.shape, scaled.shape, found) == ((0, 3), (0, 6), [])


def far_apart(logits: Tensor) -> Tensor:
    """The same rows, more than 2^31 elements apart."""
    distance = (1 << 31) + 40
    memory = torch.UntypedStorage(logits.element_size() * (distance + logits.shape[1]))
    view = torch.empty(0, dtype=logits.dtype).set_(memory, 0, logits.shape, (distance, 1))
    return view.copy_(logits)


@pytest.mark.parametrize("classes", [7, 12, 64, 4104, 17000])
def test_rows_more_than_two_to_the_31_elements_apart(classes: int) -> None:
    p, q = (torch.randn(2, classes).bfloat16() for _ in range(2))
    arguments = (1, 0, True, True, True, 1.0)
    far = [far_apart(p), far_apart(q)]
    with emulated.launches(90, far=far):
        got = emulated.operator("softmax_kl_logits_value_and_grad")(*far, *arguments)
    with emulated.launches(90):
        near = emulated.operator("softmax_kl_logits_value_and_grad")(p, q, *arguments)
    for a, b in zip(got, near, strict=True):
        # Bit for bit: aligned alike, so of the same kernel.
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_row_of_262144_classes() -> None:
    logits = torch.randn(1, 1 << 18).bfloat16()
    target = torch.softmax(torch.randn(1 << 18), 0)
    arguments = (1, 0, True, False, True, 1.0)
    with emulated.launches(90) as found:
        got = emulated.operator("softmax_kl_value_and_grad")(logits, target, *arguments)
    # The target is read for its entropy, and beside the gradient.
    assert moved(found[0], "load") == 2 * size(logits) + 2 * size(target)
    exact = torch.ops.gankernels.softmax_kl_value_and_grad(
        logits.double(), target.double(), *arguments
    )
    torch.testing.assert_close(got[0].double(), exact[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got[1].double(), exact[1], rtol=2**-8, atol=1e-9)


def long_rows(dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Two real rows, one with a part of nothing but -inf, a fake row, and two anchors with empty bins."""
    torch.manual_seed(6)
    real, fake = torch.randn(2, 25000).to(dtype), torch.randn(1, 25000).to(dtype)
    real[0, 6000:14000] = -torch.inf
    anchors = torch.rand(2, 25000)
    anchors[:, 5000:13000] = 0
    return real, fake, *anchors / anchors.sum(1, keepdim=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_few_long_rows_are_shared_by_several_blocks(dtype: torch.dtype) -> None:
    """In two launches: the sums of each part, and the gradients."""
    tensors = long_rows(dtype)
    arguments = (1, MEAN, True, True, True, 1.0)
    with emulated.launches(90, multiprocessors=132) as found:
        got = emulated.operator("realness_d_loss_value_and_grad")(*tensors, *arguments)
    names = [launch.kernel.split("<")[0] for launch in found]
    assert names == ["divergence_sums_kernel", "divergence_parts_kernel"]
    assert [launch.grid for launch in found] == [(4, 3, 1)] * 2
    # Both launches read a row and its anchor once, the second one also what the first found of its row.
    width = got[0].element_size()
    logits, anchors = size(*tensors[:2]), 3 * 25000 * width
    parts = 3 * 4 * 4 * width * 5
    assert moved(found[0], "load") == logits + anchors
    assert 0 < moved(found[1], "load") - logits - anchors <= 2 * parts
    exact = torch.ops.gankernels.realness_d_loss_value_and_grad(
        *(x.double() for x in tensors), *arguments
    )
    eps, least = torch.finfo(dtype).eps, torch.finfo(dtype).smallest_normal
    for a, b in zip(got, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=max(4 * eps, 1e-6), atol=1e-9 + eps * least)


def test_split_rows_that_are_nothing_but_infinite() -> None:
    real, fake, a1, a0 = long_rows(torch.float32)
    real[0], fake[0, 24999] = -torch.inf, torch.inf
    arguments = (1, 2, True, True, True, 1.0)
    with emulated.launches(90, multiprocessors=132):
        got = emulated.operator("realness_d_loss_value_and_grad")(real, fake, a1, a0, *arguments)
    _, g_real, g_fake = got
    assert all(x.isnan().all() for x in (got[0], g_real[0], g_fake))
    assert g_real[1].isfinite().all()


@pytest.mark.parametrize(
    ("rows", "classes", "reduction", "parts"),
    [
        (8, 262144, MEAN, 32),
        (64, 32768, MEAN, 4),
        (67, 32768, MEAN, 1),
        (8, 24576, MEAN, 1),
        (8, 262144, 0, 1),
    ],
)
def test_which_rows_are_split(rows: int, classes: int, reduction: int, parts: int) -> None:
    """As many as occupy every multiprocessor with two blocks, and no smaller than a second launch pays for."""
    logits = torch.empty(rows, classes, dtype=torch.bfloat16)
    grids: list[int] = []

    @emulated.CALLBACK
    def note(kernel: bytes, grid: Any, *rest: object) -> int:
        grids.append(grid[0])
        return 0

    library = emulated.library()
    library.gk_set_multiprocessors(132)
    library.gk_set_callback(note)
    try:
        emulated.operator("softmax_kl_logits_value_and_grad")(
            logits, logits, 1, reduction, True, True, True, 1.0
        )
    finally:
        library.gk_set_callback(emulated._callback)
    assert grids == ([parts] * 2 if parts > 1 else grids[:1]), grids


def relativistic(n: int, dtype: torch.dtype, reduction: int) -> tuple[Tensor, ...]:
    torch.manual_seed(2)
    real, fake = torch.randn(n).to(dtype) + 0.5, torch.randn(n).to(dtype)
    terms = terms_against_means("relativistic_d_loss", 1.0)
    return (real, fake, *terms, reduction, True, True, True, 1.0)


@pytest.mark.parametrize("reduction", [0, MEAN])
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_a_relativistic_loss_of_many_logits_takes_one_launch_per_stage(
    dtype: torch.dtype, reduction: int
) -> None:
    most = 16384
    for n, kernels in (
        (most, ["relativistic_kernel"]),
        (most + 1, [*["relativistic_sums_kernel"] * 2, "relativistic_gradients_kernel"]),
    ):
        arguments = relativistic(n, dtype, reduction)
        with emulated.launches(90) as found:
            got = emulated.operator("relativistic_loss_value_and_grad")(*arguments)
        assert [launch.kernel.split("<")[0] for launch in found] == kernels
        assert all(blocks(launch) > 1 for launch in found) == (n > most)
        exact = torch.ops.gankernels.relativistic_loss_value_and_grad(
            *(x.double() if isinstance(x, Tensor) else x for x in arguments)
        )
        rounding = torch.finfo(dtype).eps
        for a, b in zip(got, exact, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=2 * rounding, atol=1e-10 + rounding**2)


def aligned_calls(dtype: torch.dtype) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """An operator of every kernel, on tensors that can be moved 16 bytes at a time."""
    wide = accumulation_dtype(dtype)
    rows, other = torch.randn(24, 1024).to(dtype), torch.randn(24, 1024).to(dtype)
    anchor = torch.softmax(torch.randn(1024), 0)
    noise, half = torch.randn(24, 512).to(wide), torch.randn(24, 512).to(dtype)
    saved = half if dtype == wide else noise
    terms = terms_of("logistic_d_loss", None, None)
    weights = [torch.rand(24, 1024).to(wide) for _ in range(2)]
    each = (MEAN, (0, 1), True, 1.0)
    return {
        "divergence": (
            "realness_d_loss_value_and_grad",
            (rows, other, anchor, anchor, 1, MEAN, True, True, True, 1.0),
        ),
        "terms": (
            "scalar_loss_value_and_grad",
            ([rows, other], "r,f", (0, -1, -1, 0, 1, -1, -1, 0), terms, 1.0, *each),
        ),
        "weighted terms": (
            "scalar_loss_value_and_grad",
            ([rows, other, *weights], "r,f,w,v", (0, -1, 2, 0, 1, -1, 3, 0), terms, 1.0, *each),
        ),
        "losses of elements": (
            "scalar_loss_value_and_grad",
            ([rows, other], "r,f", (0, -1, -1, 0, 1, -1, -1, 0), terms, 1.0, 0, *each[1:]),
        ),
        "relativistic": ("relativistic_loss_value_and_grad", relativistic(20480, dtype, MEAN)),
        "scaled terms": ("scale_terms", ([rows, other], [torch.tensor(0.5)] * 2, [-1] * 2)),
        "scaled in place": ("scale_terms_", ([rows, other], [torch.tensor(0.5)] * 2, [-1] * 2)),
        "scaled rows": ("scale_gradients", (rows, other, torch.rand(24).to(wide), 1, 1, -1)),
        "resampled": ("resample_forward", (rows, noise, 1)),
        "resampled, backward": ("resample_backward", (half, rows, saved, 1)),
    }


# In which 16-bit numbers are beside fp32: of that a thread's run takes two accesses to the same sectors.
MIXED = {"divergence", "weighted terms", "losses of elements", "resampled", "resampled, backward"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", aligned_calls(torch.float32))
def test_every_sector_that_is_touched_is_used(name: str, dtype: torch.dtype) -> None:
    """32 bytes each. The compiler takes runs apart where it can, into accesses that lie apart."""
    operator, arguments = aligned_calls(dtype)[name]
    with emulated.launches(90) as found:
        emulated.operator(operator)(*arguments)
    assert found
    factor = 2 if dtype == torch.bfloat16 and name in MIXED else 1.02
    for launch in found:
        stats = launch.result.stats
        for kind in ("load", "store"):
            touched = 32 * stats[f"global_{kind}_sectors"]
            # Beside the runs: sums and tickets of blocks, and what rows share.
            beside = 256 * blocks(launch) + 4096
            assert touched <= factor * stats[f"global_{kind}_bytes"] + beside, (launch.kernel, kind)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["scaled terms", "scaled rows"])
def test_a_factor_is_made_once_where_elements_share_it(name: str, dtype: torch.dtype) -> None:
    """In double precision, of which many GPUs do a sixty-fourth of what they do in single."""
    operator, arguments = aligned_calls(dtype)[name]
    with emulated.launches(90) as found:
        outputs = emulated.operator(operator)(*arguments)
    (launch,) = found
    executed, code = launch.result.executed, launch.result.kernel.code
    doubles = 32 * sum(int(executed[ins.index]) for ins in code if "f64" in ins.mods)
    assert 0 < doubles < sum(x.numel() for x in tree_leaves(outputs))


# --- losses over lists of tensors -----------------------------------------------------------------


def discriminators(count: int, dtype: torch.dtype) -> tuple[list[Tensor], tuple[Any, ...]]:
    """Real and fake logits of several, of different sizes, and what the operator is told of them."""
    torch.manual_seed(4)
    tensors = [torch.randn(257 * (i + 1) + 8 * i).to(dtype) for i in range(2 * count)]
    places = tuple(n for i in range(2 * count) for n in (i, -1, -1, i // 2))
    terms = terms_of("logistic_d_loss", None, None) * count
    return tensors, ("x," * 2 * count, places, terms, 0.7)


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
@pytest.mark.parametrize("reduction", [0, MEAN])
def test_eight_discriminators_take_one_launch_each_way(dtype: torch.dtype, reduction: int) -> None:
    tensors, loss = discriminators(8, dtype)
    if reduction == 0:  # equal shapes within an output
        tensors = [tensors[i // 2 * 2].flip(0) if i % 2 else x for i, x in enumerate(tensors)]
    wanted = tuple(range(16))
    arguments = (*loss, reduction, wanted, True, 1.0)
    with emulated.launches(90) as forward:
        losses, gradients = emulated.operator("scalar_loss_value_and_grad")(tensors, *arguments)
    factors = [x if reduction == 0 else torch.tensor(1.5) for x in losses for _ in range(2)]
    with emulated.launches(90) as backward:
        scaled = emulated.operator("scale_terms")(gradients, factors, [-1] * 16)
    assert len(forward) == len(backward) == 1
    assert moved(forward[0], "load") >= size(*tensors)
    exact = torch.ops.gankernels.scalar_loss_value_and_grad(tensors, *arguments)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(losses, exact[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients, exact[1], rtol=4 * eps, atol=1e-9 + eps**2)
    right = torch.ops.gankernels.scale_terms(gradients, factors, [-1] * 16)
    torch.testing.assert_close(scaled, right, rtol=4 * eps, atol=1e-9 + eps**2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_in_place_move_once_and_not_at_all_by_a_factor_of_one(dtype: torch.dtype) -> None:
    gradients = [torch.randn(2048 * n).to(dtype) for n in (1, 3)]
    for factor, share in ((1.5, 1), (1.0, 0)):
        expected = [(x.double() * factor).to(dtype) for x in gradients]
        with emulated.launches(90) as found:
            emulated.operator("scale_terms_")(gradients, [torch.tensor(factor)] * 2, [-1] * 2)
        assert len(found) == 1
        assert moved(found[0], "store") == share * size(*gradients)
        assert moved(found[0], "load") <= share * size(*gradients) + 8192
        assert all(torch.equal(x, y) for x, y in zip(gradients, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bytes_of_a_list_are_the_ideal_ones(dtype: torch.dtype) -> None:
    tensors = [torch.randn(2048 * n).to(dtype) for n in (1, 3, 2)]
    terms, places = (
        terms_of("hinge_d_fake_loss", None, None) * 3,
        (0, -1, -1, 0, 1, -1, -1, 0, 2, -1, -1, 0),
    )
    with emulated.launches(90) as found:
        losses, gradients = emulated.operator("scalar_loss_value_and_grad")(
            tensors, "a,b,c", places, terms, 1.0, MEAN, (0, 1, 2), True, 1.0
        )
    partials = 8 * blocks(found[0])
    assert moved(found[0], "load") == size(*tensors) + partials
    assert moved(found[0], "store") == size(*gradients, *losses) + partials


def test_more_terms_than_the_arguments_of_a_launch_hold() -> None:
    tensors, loss = discriminators(20, torch.float32)
    for reduction in (0, MEAN):
        if reduction == 0:
            tensors = [tensors[i // 2 * 2] for i in range(40)]
        arguments = (*loss, reduction, (0, 39), True, 1.0)
        with emulated.launches(90) as found:
            got = emulated.operator("scalar_loss_value_and_grad")(tensors, *arguments)
        assert len(found) == 2
        exact = torch.ops.gankernels.scalar_loss_value_and_grad(tensors, *arguments)
        torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-6)
    # An output begun by one launch and ended by the other.
    names, places, terms, scale = loss
    one = tuple(0 if i % 4 == 3 else n for i, n in enumerate(places))
    arguments = (names, one, terms, scale, MEAN, (0, 39), True, 1.0)
    with emulated.launches(90):
        got = emulated.operator("scalar_loss_value_and_grad")(tensors, *arguments)
    exact = torch.ops.gankernels.scalar_loss_value_and_grad(tensors, *arguments)
    torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-6)


def test_grids_are_what_the_device_holds_at_once() -> None:
    """More rows than that: blocks take turns, for each would repeat what comes before its first row."""
    logits = torch.randn(2600, 5)
    anchor = torch.softmax(torch.randn(5), 0)
    with emulated.launches(90, multiprocessors=1) as found:
        loss, g_real, _ = d_loss(logits, logits, anchor)
    report = build.report(emulated.source_of(found[0].entry), 90)[found[0].entry]
    held = occupancy(90, found[0].block[0], report["regs"], report["smem"]).blocks
    assert found[0].grid == (held // 2, 2, 1)
    exact = torch.ops.gankernels.realness_d_loss_value_and_grad(
        *(x.double() for x in (logits, logits, anchor, anchor)), 1, MEAN, True, True, True, 1.0
    )
    torch.testing.assert_close(loss.double(), exact[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(g_real.double(), exact[1], rtol=1e-3, atol=1e-9)


# Schedules, and how many threads are under way at once.
ORDERS = (("lockstep", 256), ("warps", 1 << 16), ("warps_reversed", 512))


@pytest.mark.parametrize(
    ("multiprocessors", "rows", "classes", "orders"),
    [
        (1, 150, 20, ORDERS),
        (132, 150, 20, ORDERS),
        (132, 1, 24580, (*ORDERS[:1], ("lockstep", 1 << 16))),
    ],
    ids=["turns", "one row each", "split"],
)
def test_bits_do_not_depend_on_the_order_of_blocks(
    multiprocessors: int, rows: int, classes: int, orders: tuple[tuple[str, int], ...]
) -> None:
    torch.manual_seed(1)
    real, fake = torch.randn(rows, classes), torch.randn(rows, classes)
    anchor = torch.softmax(torch.randn(classes), 0)
    outcomes = []
    for schedule, threads_at_once in orders:
        options = {"schedule": schedule, "chunk_threads": threads_at_once}
        with emulated.launches(90, multiprocessors=multiprocessors, **options):
            outcomes.append(d_loss(real, fake, anchor))
    for other in outcomes[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outcomes[0], other, strict=True))


def test_a_failed_launch_says_what_failed() -> None:
    logits = torch.randn(4, 5)
    library = emulated.library()
    library.gk_set_callback(emulated.CALLBACK())  # no device to run on
    try:
        with pytest.raises(RuntimeError, match="no CUDA-capable device") as caught:
            emulated.operator("softmax_kl_logits_value_and_grad")(
                logits, logits, 1, MEAN, True, True, True, 1.0
            )
    finally:
        library.gk_set_callback(emulated._callback)
    assert "softmax_kl_logits" in str(caught.value)
    assert "cudaError 100" in str(caught.value)
