"""What Triton's compiler emits for sm_80, sm_90 and sm_100, executed on the CPU against float64.

Every access is checked (bounds, alignment, initialised, races between threads and programs).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.utils._pytree import tree_leaves

pytest.importorskip("triton", minversion="3.4", reason="needs Triton, whose compiler the tests run")

from contract.common import dtype_name

from gankernels.testing import DTYPES, Arguments, Operator
from gankernels.triton import operators as launchers
from gankernels.triton import plans
from gpu.triton_cases import FUSED, ROWS, Case, check, check_results, draw, launch, some
from tools.ptxsim import triton_driver
from tools.ptxsim.initcheck import TrackEmpty
from tools.ptxsim.occupancy import occupancy

pytestmark = pytest.mark.emulated

ARCHITECTURES = (80, 90, 100)
SCHEDULES = ("lockstep", "warps", "warps_reversed")
MEAN = 1

every_arch = pytest.mark.parametrize("arch", ARCHITECTURES)
every_operator = pytest.mark.parametrize("operator", FUSED, ids=lambda o: o.name)


@pytest.fixture(autouse=True)
def _emulated(request: pytest.FixtureRequest) -> Iterator[None]:
    arch = request.node.callspec.params.get("arch", 90) if hasattr(request.node, "callspec") else 90
    triton_driver.install(arch=arch)
    yield
    triton_driver.sim_options.clear()


@every_arch
@every_operator
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
def test_value_and_gradients(operator: Operator, arch: int, dtype: torch.dtype) -> None:
    turn = 4 * ARCHITECTURES.index(arch) + DTYPES.index(dtype)
    count = 4 if dtype == torch.float32 else 2
    if not operator.has_classes:
        count = 1
    for i, case in enumerate(some(operator, turn, count)):
        if dtype == torch.float64 and max(case.shape) > 2000:
            continue  # the emulator computes float64 exactly, and slowly
        reduction = ("mean", "sum", "none")[(turn + i) % 3]
        if case.second_batch is not None:
            reduction = "mean"
        check(operator, draw(operator, case, dtype, reduction))


@every_arch
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
def test_layers(arch: int, dtype: torch.dtype) -> None:
    statistics, noise = torch.randn(3, 20, 4).to(dtype), torch.randn(3, 10, 4)
    noise = noise.to(torch.float64 if dtype == torch.float64 else torch.float32)
    mean, log_variance = statistics.double().chunk(2, 1)
    spread = noise.double() * (log_variance / 2).exp()
    z = launchers.resample_forward(statistics, noise, 1)
    tolerance = {"rtol": 2 * torch.finfo(dtype).eps, "atol": 4 * torch.finfo(dtype).eps}
    torch.testing.assert_close(z.double(), mean + spread, **tolerance)
    g = torch.randn(3, 10, 4).to(dtype)
    saved = z if dtype in (torch.float32, torch.float64) else noise
    got = launchers.resample_backward(g, statistics, saved, 1)
    expected = torch.cat([g.double(), g.double() * spread / 2], 1)
    torch.testing.assert_close(got.double(), expected, rtol=8 * tolerance["rtol"], atol=1e-5)

    gradients = [torch.randn(5, 6).to(dtype), torch.randn(4, 6).to(dtype)]
    for grad_output in (torch.tensor(0.3), torch.tensor(0.3, dtype=torch.float64)):
        scaled = launchers.scale_gradients(gradients[0], gradients[1], grad_output, 1, 5, -1)
        for got, gradient, rows in zip(scaled, gradients, (5, 1), strict=True):
            expected = gradient.double() * grad_output.double() / rows
            torch.testing.assert_close(got.double(), expected, **tolerance)
    expected = [x.double() * f for x, f in zip(gradients, (1.5 / 5, 1.0), strict=True)]
    launchers.scale_terms_(gradients, [torch.tensor(1.5), torch.tensor(1.0)], [5, -1])
    for got, exact in zip(gradients, expected, strict=True):
        torch.testing.assert_close(got.double(), exact, **tolerance)
    per_row = torch.randn(3, 4)
    gradient = torch.randn(3, 6, 4).to(dtype)
    got = launchers.scale_gradient(gradient, per_row, 1, -1)
    torch.testing.assert_close(
        got.double(), gradient.double() * per_row.double().unsqueeze(1), **tolerance
    )


# --- layouts -------------------------------------------------------------------------------------


def offset_by_one(x: torch.Tensor) -> torch.Tensor:
    """Not aligned to 16 bytes: only single elements may be loaded."""
    return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)


def padded(x: torch.Tensor) -> torch.Tensor:
    """Rows an odd number of elements apart."""
    return torch.cat([x, x.new_zeros(*x.shape[:-1], 3)], -1)[..., : x.shape[-1]]


def transposed(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(0, -1).contiguous().transpose(0, -1)


def every_other(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x, torch.zeros_like(x)], -1).flatten(-2)[..., ::2]


LAYOUTS = (offset_by_one, padded, transposed, every_other)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "name", ["realness_d_loss", "softmax_kl_logits", "js_divergence", "lsgan_d_loss"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_name)
def test_layouts(name: str, layout, dtype: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    """Logits and targets wherever they lie; one of the two batches differently from the other."""
    operator = ROWS[name]
    for shape in ((6, 24), (2, 4, 3, 5)):
        arguments = draw(operator, Case(shape, target="rows"), dtype, "mean")
        first = operator.logits[0]
        names = [first, *(n for n in arguments if n.endswith("anchor"))]
        moved = {n: layout(arguments[n]) for n in names}
        assert all(torch.equal(moved[n], arguments[n]) for n in names)
        check(operator, {**arguments, **moved})


def test_one_batch_across_the_other() -> None:
    """Classes side by side in one batch, rows in the other."""
    operator = ROWS["realness_d_loss"]
    for reduction in ("mean", "none"):
        arguments = draw(operator, Case((20, 24)), torch.float32, reduction)
        for name in operator.logits:
            check(operator, {**arguments, name: transposed(arguments[name])})


# --- 64-bit offsets ------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [12, 9000])
@pytest.mark.parametrize("name", ["realness_g_loss", "softmax_kl_logits", "js_divergence"])
def test_rows_more_than_two_to_the_31_elements_apart(name: str, classes: int) -> None:
    operator = ROWS[name]
    options = {"objective": 1} if name == "realness_g_loss" else {}
    case = Case((2, classes), options=options)
    arguments = draw(operator, case, torch.bfloat16, "mean")
    far = (1 << 31) + 40
    for n in operator.inputs(arguments):
        memory = torch.UntypedStorage(2 * (far + classes))  # mapped by the system where touched
        view = torch.empty(0, dtype=torch.bfloat16).set_(memory, 0, (2, classes), (far, 1))
        arguments[n] = view.copy_(arguments[n])
    check(operator, arguments)


def test_a_row_of_262144_classes() -> None:
    operator, case = ROWS["realness_g_loss"], Case((1, 1 << 18), options={"objective": 1})
    check(operator, draw(operator, case, torch.bfloat16, "mean"))


# --- many programs, one sum ----------------------------------------------------------------------


def many_programs(seed: int = 0) -> Arguments:
    """A D loss whose batches take several programs each, and those several tiles each."""
    case = Case((1700, 20), second_batch=1000)
    return ROWS["realness_d_loss"].draw(case, torch.float32, reduction="mean", seed=seed)


@every_arch
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules(arch: int, schedule: str) -> None:
    """Whatever order warps run in: no race, and the same bits."""
    operator, arguments = ROWS["realness_d_loss"], many_programs()
    triton_driver.install(arch=arch, schedule=schedule)
    value, gradients = launch(operator, arguments)
    check_results(operator, arguments, value, gradients)
    triton_driver.install(arch=arch)
    again, gradients_again = launch(operator, arguments)
    assert torch.equal(value, again)
    assert all(torch.equal(g, gradients_again[n]) for n, g in gradients.items())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_whole_rows_exchange_their_sums_through_shared_memory_in_any_order(schedule: str) -> None:
    triton_driver.install(arch=90, schedule=schedule)
    for name in ("realness_d_loss", "softmax_kl_logits"):
        operator = ROWS[name]
        check(operator, draw(operator, Case((3, 1025)), torch.float32, "mean"))


def test_a_ticket_serves_again() -> None:
    """The last program of a launch leaves its slot at zero, so thousands of launches go on."""
    from gankernels.triton import tickets

    operator = ROWS["realness_d_loss"]
    mine = tickets._tickets(torch.device("cpu"))
    slot = next(mine.in_turn)
    mine.in_turn = iter([slot, slot, slot])  # type: ignore[assignment]
    try:
        for seed in range(3):
            arguments = many_programs(seed)
            check(operator, arguments)
            assert int(slot) == 0
    finally:
        tickets._tickets.cache_clear()


def test_every_output_is_written_and_nothing_read_before() -> None:
    operator = ROWS["realness_d_loss"]
    with TrackEmpty():
        for shape in ((33, 20), (3, 1025), (2, 20, 5, 4)):
            for reduction in ("mean", "none"):
                check(operator, draw(operator, Case(shape), torch.float32, reduction))
        relativistic = ROWS["relativistic_d_loss"]
        check(relativistic, draw(relativistic, Case((20000,)), torch.float32, "mean"))


# --- traffic -------------------------------------------------------------------------------------


def launches_of(operator: Operator, arguments: Arguments) -> int:
    with triton_driver.recorded() as launched:
        launch(operator, arguments)
    return len(launched)


@every_operator
def test_one_launch_for_the_loss_and_every_gradient(operator: Operator) -> None:
    case = Case((40, 20), options=operator.options[-1])
    for reduction in ("mean", "none"):
        assert launches_of(operator, draw(operator, case, torch.float32, reduction)) == 1


def test_a_relativistic_loss_of_large_batches_takes_one_launch_per_stage() -> None:
    operator = ROWS["relativistic_d_loss"]
    arguments = draw(operator, Case((20000,)), torch.float32, "mean")
    assert launches_of(operator, arguments) == 3


def test_backward_adds_one_launch_at_most() -> None:
    with triton_driver.recorded() as launched:
        launchers.scale_gradients(torch.ones(5, 6), torch.ones(4, 6), torch.tensor(2.0), 1, -1, -1)
    assert len(launched) == 1


def test_gradients_in_place_move_once_and_not_at_all_by_a_factor_of_one() -> None:
    gradients = [
        torch.randn(n) for n in (40_000, 700)
    ]  # of several tiles for each program, and one
    size = 4 * 40_700
    for factor, share in ((1.5, 1), (1.0, 0)):
        expected = [x * factor for x in gradients]
        with triton_driver.recorded() as launched:
            launchers.scale_terms_(gradients, [torch.tensor(factor)] * 2, [-1, -1])
        (launch,) = launched
        assert launch.result.stats["global_store_bytes"] == share * size
        assert launch.result.stats["global_load_bytes"] <= share * size + 65_536
        assert all(torch.equal(x, y) for x, y in zip(gradients, expected, strict=True))


def test_backward_of_a_sum_of_row_losses_adds_one_launch_too() -> None:
    """autograd hands over one number, expanded to the rows."""
    ones = torch.tensor(2.0).expand(5)
    with triton_driver.recorded() as launched:
        scaled = launchers.scale_gradients(torch.ones(5, 6), torch.ones(5, 6), ones, 1, -1, -1)
    assert len(launched) == 1
    assert all(torch.equal(s, torch.full((5, 6), 2.0)) for s in scaled)


def test_what_is_not_asked_for_is_neither_computed_nor_allocated() -> None:
    real, fake = torch.randn(40, 64), torch.randn(40, 64)
    anchor = torch.rand(64)
    options = (1, MEAN, False, True, True, 1.0)
    with triton_driver.recorded() as launched:
        _, g_real, g_fake = launchers.realness_d_loss(real, fake, anchor, anchor, *options)
    assert g_real.numel() == 0
    assert g_fake.shape == fake.shape
    stores = launched[0].result.stats["global_store_bytes"]
    partials = stores - 4 * fake.numel()
    assert 0 < partials < 200


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=dtype_name)
def test_aligned_rows_move_16_bytes_at_once(dtype: torch.dtype) -> None:
    """Also where the number of classes is no multiple of 16."""
    classes = 40 if dtype == torch.float16 else 20
    logits = torch.randn(64, classes).to(dtype)
    with triton_driver.recorded() as launched:
        launchers.softmax_kl_logits(logits, logits.clone(), 1, MEAN, True, True, True, 1.0)
    stats = launched[0].result.stats
    bytes_of_logits = 2 * logits.numel() * logits.element_size()
    assert 16 * stats["global_load_128b_threads"] == bytes_of_logits
    assert 16 * stats["global_store_128b_threads"] == bytes_of_logits


@pytest.mark.parametrize("classes", [5, 20, 64, 128, 300])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rows_side_by_side_take_whole_sectors_at_a_time(dtype: torch.dtype, classes: int) -> None:
    """(N, K, H, W) with many positions: as few 32-byte sectors as the bytes fill."""
    logits = torch.randn(2, classes, 16, 16).to(dtype)
    anchor = torch.rand(classes)
    with triton_driver.recorded() as launched:
        launchers.softmax_kl(logits, anchor, 1, MEAN, True, False, True, 1.0)
    stats = launched[0].result.stats
    sectors = logits.numel() * logits.element_size() // 32
    assert sectors <= stats["global_store_sectors"] <= sectors + 16  # and the partial sums'


# --- nothing to do -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["realness_d_loss", "softmax_kl_logits", "logistic_d_loss"])
def test_empty_batches(name: str) -> None:
    operator = ROWS[name]
    for shape in ((0, 5), (0, 3, 4, 4)):
        for reduction, expected in (("mean", float("nan")), ("sum", 0.0), ("none", None)):
            arguments = draw(operator, Case(shape), torch.float32, reduction)
            overload = getattr(torch.ops.gankernels, operator.fused_operator).default
            given = operator.compiled_arguments(overload, arguments)
            launcher = getattr(launchers, operator.fused_operator.removesuffix("_value_and_grad"))
            value, *gradients = tree_leaves(launcher(*given))
            assert all(list(g.shape) == list(shape) for g in gradients)
            if expected is None:
                assert value.numel() == 0
            else:
                torch.testing.assert_close(value, torch.tensor(expected), equal_nan=True)


def test_one_empty_batch() -> None:
    real, fake = torch.randn(3, 4), torch.randn(0, 4)
    anchor = torch.full((4,), 0.25)
    for reduction in (1, 2):
        options = (1, reduction, True, True, True, 1.0)
        loss, g_real, _ = launchers.realness_d_loss(real, fake, anchor, anchor, *options)
        expected = torch.ops.gankernels.realness_d_loss_value_and_grad(
            real, fake, anchor, anchor, *options
        )
        torch.testing.assert_close(loss, expected[0], equal_nan=True)
        torch.testing.assert_close(g_real, expected[1])


# --- grids ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "second"), [(1700, 1700), (1700, 200), (1700, 1), (130, 130)])
def test_grids_are_what_the_device_holds_at_once(rows: int, second: int) -> None:
    """By the kernel's registers; two batches share them by their tiles."""
    real, fake, anchor = torch.randn(rows, 20), torch.randn(second, 20), torch.rand(20)
    options = (1, MEAN, True, True, True, 1.0)
    tiles = [-(-n // 64) for n in (rows, second)]
    grids = []
    for _ in range(2):  # the second one is a replay
        with triton_driver.recorded() as launched:
            launchers.realness_d_loss(real, fake, anchor, anchor, *options)
        grids.append(launched[0].result.grid[0])
    fit = occupancy(90, launched[0].threads, launched[0].registers, launched[0].shared).blocks
    assert grids == [min(sum(tiles), fit)] * 2
    with triton_driver.recorded() as launched:
        launchers.softmax_kl_logits(real, real, 1, MEAN, True, True, True, 1.0)
    fit = occupancy(90, launched[0].threads, launched[0].registers, launched[0].shared).blocks
    assert launched[0].result.grid[0] == min(tiles[0], fit)


def test_batches_share_programs_by_their_tiles() -> None:
    assert plans.shared_out([60, 60], 264) == [60, 60]
    assert plans.shared_out([8192, 8192], 264) == [132, 132]
    assert plans.shared_out([8192, 2731], 264) == [198, 66]
    assert plans.shared_out([8192, 1], 264) == [263, 1]
    assert plans.shared_out([1, 8192], 264) == [1, 263]
    assert plans.shared_out([8192, 8192], 1) == [1, 1]
    assert plans.shared_out([8192], 264) == [264]


# --- few long rows -------------------------------------------------------------------------------


@pytest.fixture
def processors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Those of an H100."""
    monkeypatch.setattr(plans, "EMULATED_PROCESSORS", 132)
    plans.processors.cache_clear()
    yield
    plans.processors.cache_clear()


def long_rows(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Two real rows, one with a part of nothing but -inf, a fake row, and two anchors with empty bins."""
    torch.manual_seed(6)
    real, fake = torch.randn(2, 25000).to(dtype), torch.randn(1, 25000).to(dtype)
    real[0, 8000:17000] = -torch.inf
    anchors = torch.rand(2, 25000)
    anchors[0, 7000:17500] = 0
    anchors[1, 5000:13000] = 0
    return real, fake, *anchors / anchors.sum(1, keepdim=True)


SPLIT = (1, MEAN, True, True, True, 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_name)
def test_few_long_rows_are_shared_by_several_programs(dtype: torch.dtype, processors: None) -> None:
    """In two launches, also replayed: the sums of each part, and the gradients."""
    tensors = long_rows(dtype)
    exact = torch.ops.gankernels.realness_d_loss_value_and_grad(
        *(x.double() for x in tensors), *SPLIT
    )
    eps, least = torch.finfo(dtype).eps, torch.finfo(dtype).smallest_normal
    outcomes = []
    for options in ({}, {"schedule": "warps_reversed", "chunk_threads": 1 << 10}):
        with triton_driver.options(**options), triton_driver.recorded() as launched:
            got = launchers.realness_d_loss(*tensors, *SPLIT)
        assert [launch.result.grid for launch in launched] == [(12, 1, 1)] * 2
        for a, b in zip(got, exact, strict=True):
            bound = {"rtol": max(4 * eps, 1e-6), "atol": 1e-9 + eps * least}
            torch.testing.assert_close(a.double(), b, **bound)
        outcomes.append(got)
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))
    width = dtype.itemsize
    logits, anchors = 3 * 25000 * width, 3 * 25000 * 4
    loaded = [launch.result.stats["global_load_bytes"] for launch in launched]
    assert loaded[0] == logits + anchors
    # A row's numbers reach the lanes of its tiles in registers, also before Triton 3.9.
    warps = 12 * launched[1].threads // 32
    assert launched[1].result.stats["shared_store_warp_instrs"] < 8 * warps


def test_split_rows_that_are_nothing_but_infinite(processors: None) -> None:
    real, fake, a1, a0 = long_rows(torch.float32)
    real[0], fake[0, 24999] = -torch.inf, torch.inf
    loss, g_real, g_fake = launchers.realness_d_loss(real, fake, a1, a0, *SPLIT)
    assert all(x.isnan().all() for x in (loss, g_real[0], g_fake))
    assert g_real[1].isfinite().all()


def test_split_rows_with_targets_of_their_own(processors: None) -> None:
    operator = ROWS["softmax_kl"]
    case = Case((1, 25001), target="rows", empty_bins=True)
    arguments = draw(operator, case, torch.float32, "sum")
    with triton_driver.recorded() as launched:
        check(operator, arguments)
    assert len(launched) == 2


@pytest.mark.parametrize(
    ("rows", "classes", "parts"),
    [(8, 262144, 32), (64, 32768, 4), (67, 32768, 1), (8, 24576, 1), (8, 24577, 4), (0, 262144, 1)],
)
def test_which_rows_are_split(rows: int, classes: int, parts: int, processors: None) -> None:
    """As many as occupy every multiprocessor twice, and no smaller than a second launch pays for."""
    assert plans.parts_of(rows, classes, torch.device("cpu")) == parts


def test_losses_of_single_rows_are_not_split(processors: None) -> None:
    real, fake, a1, a0 = long_rows(torch.bfloat16)
    with triton_driver.recorded() as launched:
        launchers.realness_d_loss(real[:1], fake, a1, a0, 1, 0, True, True, True, 1.0)
    assert len(launched) == 1
