"""Launches made again: the right ones, on the call's own tensors, and nothing kept alive for it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

pytest.importorskip("triton", reason="needs Triton, whose compiler the tests run")

from triton import knobs
from triton.runtime.jit import JITFunction

from gankernels import triton
from gankernels._scalar import SCALAR_LOSSES
from gankernels.testing import Operator
from gankernels.triton import operators as launchers
from gankernels.triton import replays, tickets
from gpu import triton_interpreter
from gpu.emulation import triton_ptxsim
from gpu.triton_cases import FUSED, ROWS, Case, check, some

pytestmark = pytest.mark.emulated

MEAN, SUM = 1, 2
FLAGS = (True, True, True, 1.0)


@pytest.fixture(autouse=True)
def _emulated() -> Iterator[None]:
    triton_ptxsim.install(arch=90)
    yield
    triton_ptxsim.sim_options.clear()


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels whose arguments Triton bound: those of launches that were no replays."""
    names: list[str] = []
    run = JITFunction.run

    def counted(kernel: JITFunction, *args: Any, **kwargs: Any) -> Any:
        names.append(kernel.__name__)
        return run(kernel, *args, **kwargs)

    monkeypatch.setattr(JITFunction, "run", counted)
    return names


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What every launch was given."""
    found: list[tuple[Any, ...]] = []
    original = triton_ptxsim.Launcher.__call__

    def noted(launcher: Any, *args: Any) -> None:
        found.append(args)
        original(launcher, *args)

    monkeypatch.setattr(triton_ptxsim.Launcher, "__call__", noted)
    return found


def kept() -> int:
    return sum(len(forms.replays) for forms in replays._every)


def agree(name: str, *arguments: Any) -> None:
    """The launcher's results are those of the CPU kernels."""
    found = getattr(launchers, name)(*arguments)
    of_loss = f"{name}_value_and_grad"
    operator = of_loss if of_loss in triton.implemented() else name
    expected = getattr(torch.ops.gankernels, operator)(*arguments)
    single = isinstance(found, Tensor)
    pairs = [(found, expected)] if single else zip(found, expected, strict=True)
    for ours, theirs in pairs:
        assert ours.stride() == theirs.stride()
        torch.testing.assert_close(ours, theirs, equal_nan=True)
        zeros = (ours == 0) & (theirs == 0)
        assert torch.equal(ours[zeros].signbit(), theirs[zeros].signbit())


# --- every operator ------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", FUSED, ids=lambda o: o.name)
@pytest.mark.parametrize("turn", range(2))
def test_later_calls_of_a_form_are_replays_and_right(
    operator: Operator, turn: int, bound: list[str]
) -> None:
    for i, case in enumerate(some(operator, turn, 4)):
        reduction = "mean" if case.second_batch is not None else ("mean", "sum", "none")[i % 3]
        calls = [operator.draw(case, torch.float32, reduction=reduction, seed=s) for s in range(3)]
        check(operator, calls[0])
        first = len(bound)
        assert first > 0
        for arguments in calls[1:]:
            with triton_ptxsim.recorded() as launched:
                check(operator, arguments)
            assert launched
            assert len(bound) == first
        replays.forget()
        bound.clear()


def statistics(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.randn(3, 20, 4).to(dtype), torch.randn(3, 10, 4)


LAYERS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "scale_gradient": lambda: (torch.randn(3, 6, 4), torch.randn(3, 4), 1, -1),
    "scale_gradients": lambda: (torch.randn(5, 6), torch.randn(4, 6), torch.randn(()), 1, 5, -1),
    "scale_gradients of two dtypes": lambda: (
        torch.randn(5, 6),
        torch.randn(4, 6).bfloat16(),
        torch.randn(()),
        1,
        5,
        -1,
    ),
    "resample_forward": lambda: (*statistics(torch.float32), 1),
    "resample_backward": lambda: (
        torch.randn(3, 10, 4).bfloat16(),
        *statistics(torch.bfloat16),
        1,
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_and_backward_are_replayed_too(name: str, bound: list[str]) -> None:
    agree(name.split(" ")[0], *LAYERS[name]())
    first = len(bound)
    assert first == (2 if "two dtypes" in name else 1)
    for _ in range(2):
        agree(name.split(" ")[0], *LAYERS[name]())
    assert len(bound) == first


def test_every_stage_of_a_relativistic_loss_is_replayed(bound: list[str]) -> None:
    """Three launches, which share partial sums, a ticket, and the sums of the stages before."""
    operator = ROWS["relativistic_d_loss"]
    for seed in range(3):
        check(operator, operator.draw(Case((20000,)), reduction="mean", seed=seed))
    assert len(bound) == 3


# --- what makes another form ---------------------------------------------------------------------


def offset(x: Tensor) -> Tensor:
    """Not aligned to 16 bytes."""
    return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)


def padded(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_zeros(*x.shape[:-1], 4)], -1)[..., : x.shape[-1]]


def transposed(x: Tensor) -> Tensor:
    return x.t().contiguous().t()


def d_loss(**changed: Any) -> tuple[Any, ...]:
    """A call whose dimensions have one size: any may be that of the classes."""
    arguments: dict[str, Any] = {
        "real": torch.randn(20, 20),
        "fake": torch.randn(20, 20),
        "p": torch.softmax(torch.randn(20), 0),
        "m": torch.softmax(torch.randn(20), 0),
        "dim": 1,
        "reduction": MEAN,
        "real_grad": True,
        "fake_grad": True,
        "fold_mean": True,
        "grad_scale": 1.0,
    }
    same = changed.pop("same", None)
    for name, change in changed.items():
        arguments[name] = change(arguments[name]) if callable(change) else change
    if same is not None:
        arguments[same[1]] = arguments[same[0]]
    return tuple(arguments.values())


CHANGES: dict[str, dict[str, Any]] = {
    "dtype": dict.fromkeys(("real", "fake", "p", "m"), Tensor.double),
    "dtype of the targets": dict.fromkeys(("p", "m"), Tensor.double),
    "alignment": {"fake": offset},
    "alignment of a target": {"m": offset},
    "stride": {"real": padded},
    "rows side by side": {"real": transposed, "fake": transposed},
    "shape": {"real": lambda x: x[:7].clone()},
    "dim": {"dim": 0},
    "reduction": {"reduction": SUM},
    "no real gradient": {"real_grad": False},
    "no fake gradient": {"fake_grad": False},
    "fold_mean": {"fold_mean": False},
    "grad_scale": {"grad_scale": 3.0},
    "grad_scale of zero": {"grad_scale": 0.0},
    "grad_scale of minus zero": {"grad_scale": -0.0},
    "targets of each row": dict.fromkeys(("p", "m"), lambda t: t.expand(20, 20).contiguous()),
    "targets of each row, expanded": dict.fromkeys(("p", "m"), lambda t: t.expand(20, 20)),
    "targets as rows": dict.fromkeys(("p", "m"), lambda t: t.view(1, 20)),
    "one target": {"same": ("p", "m")},
    "one batch": {"same": ("real", "fake")},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("back", [False, True], ids=["there", "back"])
def test_another_form_is_not_served_by_a_replay(change: str, back: bool, bound: list[str]) -> None:
    """Neither the changed call by the other's replay, nor the other way round."""
    forms: list[dict[str, Any]] = [{}, CHANGES[change]]
    first, second = reversed(forms) if back else forms
    for _ in range(2):
        agree("realness_d_loss", *d_loss(**first))
    assert len(bound) == 1
    agree("realness_d_loss", *d_loss(**second))
    assert len(bound) == 2
    agree("realness_d_loss", *d_loss(**second))
    agree("realness_d_loss", *d_loss(**first))
    assert len(bound) == 2


def test_zeros_of_both_signs_are_two_forms(bound: list[str]) -> None:
    for grad_scale in (0.0, -0.0):
        agree("realness_d_loss", *d_loss(grad_scale=grad_scale))
    assert len(bound) == 2


def test_the_numbers_of_a_term_are_part_of_the_form(bound: list[str]) -> None:
    row = SCALAR_LOSSES["lsgan_d_loss"]
    for fake_term in (row.fake, tuple(x + 1 if i == 2 else x for i, x in enumerate(row.fake))):
        for _ in range(2):
            real, fake = torch.randn(33), torch.randn(33)
            terms = (list(row.real), list(fake_term), False)
            agree("scalar_loss", real, fake, *terms, MEAN, *FLAGS)
    assert len(bound) == 2


def test_optional_tensors_are_part_of_the_form(bound: list[str]) -> None:
    for real_anchor in (None, torch.rand(6)):
        for _ in range(2):
            fake, anchor = torch.randn(5, 6), torch.rand(6)
            objective = 1 if real_anchor is None else 3
            arguments = (None, fake, real_anchor, anchor, objective, 1, MEAN)
            agree("realness_g_loss", *arguments, False, True, True, 1.0)
    assert len(bound) == 2


def test_where_the_compiler_asks_for_the_size_of_storages_it_is_part_of_the_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small, large = torch.empty(8), torch.empty(16)[:8]
    same = [replays.form_of([x])[0] for x in (small, large)]
    assert same[0] == same[1]
    monkeypatch.setattr(replays, "BY_STORAGE", True)
    monkeypatch.setattr(replays, "INT32_MAX", 40)
    differ = [replays.form_of([x])[0] for x in (small, large)]
    assert differ[0] != differ[1]


def test_a_kernel_is_not_replayed_on_another_device(bound: list[str]) -> None:
    for arch in (90, 80, 80, 90):
        triton_ptxsim.install(arch=arch)
        with triton_ptxsim.recorded() as launched:
            agree("realness_d_loss", *d_loss())
        assert [execution.arch for execution in launched] == [arch]
    assert len(bound) == 3  # one place for both: devices differ in their tensors' form


# --- what is never replayed ----------------------------------------------------------------------

row = SCALAR_LOSSES["logistic_d_loss"]
COPIES: dict[str, Callable[[], tuple[Any, ...]]] = {
    "realness_d_loss, dimensions that do not merge": lambda: (
        torch.randn(2, 3, 4, 5).permute(3, 1, 0, 2),
        torch.randn(2, 3, 4, 5).permute(3, 1, 0, 2),
        torch.rand(3),
        torch.rand(3),
        1,
        MEAN,
        *FLAGS,
    ),
    "realness_d_loss, targets of two dtypes": lambda: d_loss(p=Tensor.double),
    "realness_g_loss, targets of two strides": lambda: (
        None,
        torch.randn(6, 20),
        torch.rand(6, 20),
        torch.rand(20, 6).t(),
        3,
        1,
        MEAN,
        False,
        *FLAGS[1:],
    ),
    "scalar_loss, a batch across its losses": lambda: (
        torch.randn(4, 6),
        torch.randn(6, 4).t(),
        list(row.real),
        list(row.fake),
        False,
        0,
        *FLAGS,
    ),
    "scale_gradient, gradients that are not dense": lambda: (
        torch.randn(6, 8)[:, ::2],
        torch.tensor(0.5),
        1,
        -1,
    ),
    "scale_gradients, one of them without a launch": lambda: (
        torch.randn(3, 6),
        torch.randn(6, 3).bfloat16().t(),
        torch.randn(3),
        1,
        -1,
        -1,
    ),
    "scale_gradient, without a launch": lambda: (torch.randn(6, 3).t(), torch.randn(3), 1, -1),
    "resample_forward, statistics across": lambda: (
        torch.randn(4, 20, 3).transpose(0, 2),
        torch.randn(3, 10, 4),
        1,
    ),
}


@pytest.mark.parametrize("name", COPIES)
def test_what_takes_copies_is_never_replayed(name: str, bound: list[str]) -> None:
    launches = []
    for _ in range(3):
        bound.clear()
        agree(name.split(",")[0], *COPIES[name]())
        launches.append(len(bound))
    assert launches == [0 if name.endswith(", without a launch") else 1] * 3


def test_the_interpreter_never_replays() -> None:
    interpreter = triton_interpreter.Interpreter()
    interpreter.switch_on()
    try:
        before = triton_interpreter.launches
        for calls in range(1, 4):
            agree("softmax_kl_logits", torch.randn(4, 6), torch.randn(4, 6), 1, MEAN, *FLAGS)
            assert triton_interpreter.launches == before + calls
    finally:
        interpreter.switch_off()


@pytest.mark.parametrize("reduction", range(3))
def test_empty_batches_again_and_again(reduction: int) -> None:
    row = SCALAR_LOSSES["logistic_d_loss"]
    for shape in ((0, 6), (0, 3, 4, 4)):
        for _ in range(3):
            real, fake = torch.randn(shape), torch.randn(shape)
            agree("softmax_kl_logits", real, fake, 1, reduction, *FLAGS)
            terms = (list(row.real), list(row.fake), False)
            agree("scalar_loss", real, fake, *terms, reduction, *FLAGS)


def test_where_there_is_nothing_to_launch_no_device_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As under the interpreter, which has none."""
    monkeypatch.delattr(replays, "driver")
    for _ in range(2):
        agree("softmax_kl_logits", torch.randn(0, 6), torch.randn(0, 6), 1, 0, *FLAGS)


def test_a_refused_call_leaves_nothing_behind() -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="real_anchor"):
            launchers.realness_d_loss(*d_loss(p=lambda t: t[:7]))
        assert replays.current() is None
    assert kept() == 0


def test_a_replay_checks_as_the_first_call_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its outputs come from the same C++, which refuses first."""
    agree("realness_d_loss", *d_loss())

    def refuse(name: str) -> Callable[..., Any]:
        raise ValueError(name)

    monkeypatch.setattr(launchers, "outputs_of", refuse)
    with pytest.raises(ValueError, match="realness_d_loss_value_and_grad"):
        launchers.realness_d_loss(*d_loss())


# --- what a launch is given ----------------------------------------------------------------------


def tall() -> tuple[Any, ...]:
    """Of more than one program, so that it takes a ticket."""
    return d_loss(real=lambda _: torch.randn(300, 20), fake=lambda _: torch.randn(300, 20))


def test_every_replay_takes_a_ticket_of_its_own(
    given: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under capture that is one which stays the graph's."""
    agree("realness_d_loss", *tall())
    handed_out = [torch.zeros(1, dtype=torch.int32) for _ in range(3)]
    left = iter(handed_out)
    monkeypatch.setattr(replays, "ticket", lambda device: next(left))
    given.clear()
    for mine in handed_out:
        agree("realness_d_loss", *tall())
        assert any(argument is mine for argument in given[-1])
        assert int(mine) == 0
    assert replays.ticket is not tickets.ticket


def test_a_replay_goes_to_the_current_stream_with_the_hooks_of_the_moment(
    given: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    agree("realness_d_loss", *tall())
    device = triton_ptxsim.install(arch=90)
    monkeypatch.setattr(device, "get_current_stream", lambda device=None: 7)
    enter, leave = (lambda metadata: None), (lambda metadata: None)
    monkeypatch.setattr(knobs.runtime, "launch_enter_hook", enter)
    monkeypatch.setattr(knobs.runtime, "launch_exit_hook", leave)
    agree("realness_d_loss", *tall())
    stream, _, _, metadata, entered, left = given[-1][3:9]
    assert stream == 7
    assert entered is enter
    assert left is leave
    assert metadata.get()["name"] == "divergence_kernel"


# --- what is kept --------------------------------------------------------------------------------


def test_no_tensor_is_kept(given: list[tuple[Any, ...]]) -> None:
    for _ in range(3):
        arguments = tall()
        outputs = launchers.realness_d_loss(*arguments)
        touched = [a for a in given[-1] if isinstance(a, Tensor) and a.dtype != torch.int32]
        held = [a for a in (*arguments, *outputs, *touched) if isinstance(a, Tensor)]
        storages = [StorageWeakRef(t.untyped_storage()) for t in held]
        given.clear()
        del arguments, outputs, touched, held
        gc.collect()
        assert len(storages) == 4 + 3 + 10
        assert all(storage.expired() for storage in storages)


def test_forms_are_bounded_and_the_oldest_goes(
    bound: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "MOST_FORMS", 3)

    def rows(n: int) -> int:
        before = len(bound)
        logits = torch.randn(n, 6)
        agree("softmax_kl_logits", logits, torch.randn(n, 6), 1, MEAN, *FLAGS)
        assert kept() <= 3
        return len(bound) - before

    assert [rows(n) for n in (1, 2, 3, 1)] == [1, 1, 1, 0]
    assert rows(4) == 1  # in the place of 2, which was not called for longest
    assert [rows(n) for n in (1, 3, 4)] == [0, 0, 0]
    assert rows(2) == 1
    assert kept() == 3


def test_what_another_thread_launches_meanwhile_is_not_recorded(bound: list[str]) -> None:
    """autograd calls backward on a thread of its own."""
    launched, go_on = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def scale() -> None:
        try:
            agree("scale_gradient", torch.randn(3, 6), torch.tensor(2.0), 1, -1)
        except BaseException as error:
            failed.append(error)
            launched.set()

    def wait(_: Any) -> None:
        launched.set()
        go_on.wait(60)

    def meanwhile(_: Any) -> None:
        """The other thread's call begins within this launch, and ends after this call."""
        triton_ptxsim.listeners[:] = [wait]
        thread.start()
        launched.wait(60)
        triton_ptxsim.listeners.clear()

    thread = threading.Thread(target=scale)
    triton_ptxsim.listeners.append(meanwhile)
    try:
        agree("realness_d_loss", *tall())
    finally:
        triton_ptxsim.listeners.clear()
        go_on.set()
        thread.join()
    assert not failed
    assert sorted(bound) == ["divergence_kernel", "scale_kernel"]
    scale()
    agree("realness_d_loss", *tall())
    assert not failed
    assert len(bound) == 2
