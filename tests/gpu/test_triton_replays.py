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

pytest.importorskip("triton", minversion="3.4", reason="needs Triton, whose compiler the tests run")

from triton import knobs

from gankernels import triton
from gankernels.testing import Operator
from gankernels.triton import operators as launchers
from gankernels.triton import replays, tickets
from gpu.triton_cases import FLAGS, FUSED, ROWS, Case, agree, check, d_loss, some
from tools.ptxsim import triton_driver

pytestmark = pytest.mark.emulated

MEAN = 1


@pytest.fixture(autouse=True)
def _emulated() -> Iterator[None]:
    triton_driver.install(arch=90)
    yield
    triton_driver.sim_options.clear()


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What every launch was given."""
    found: list[tuple[Any, ...]] = []
    original = triton_driver.Launcher.__call__

    def noted(launcher: Any, *args: Any) -> None:
        found.append(args)
        original(launcher, *args)

    monkeypatch.setattr(triton_driver.Launcher, "__call__", noted)
    return found


def kept() -> int:
    return sum(len(forms.replays) for forms in replays._every)


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
            with triton_driver.recorded() as launched:
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
    "scale_terms": lambda: ([torch.randn(5, 6), torch.randn(7)], [torch.randn(())] * 2, [5, -1]),
    "scale_terms_": lambda: ([torch.randn(5, 6), torch.randn(7)], [torch.randn(())] * 2, [5, -1]),
    "resample_forward": lambda: (*statistics(torch.float32), 1),
    "resample_backward": lambda: (
        torch.randn(3, 10, 4).bfloat16(),
        *statistics(torch.bfloat16),
        1,
    ),
}


def test_every_operator_is_among_those_that_are_replayed_here() -> None:
    names = {operator.fused_operator for operator in FUSED} | {n.split(" ")[0] for n in LAYERS}
    assert names == set(triton.implemented())


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
    device = triton_driver.install(arch=90)
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
        assert len(storages) == 4 + 3 + 11
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
        triton_driver.listeners[:] = [wait]
        thread.start()
        launched.wait(60)
        triton_driver.listeners.clear()

    thread = threading.Thread(target=scale)
    triton_driver.listeners.append(meanwhile)
    try:
        agree("realness_d_loss", *tall())
    finally:
        triton_driver.listeners.clear()
        go_on.set()
        thread.join()
    assert not failed
    assert sorted(bound) == ["divergence_kernel", "scale_kernel"]
    scale()
    agree("realness_d_loss", *tall())
    assert not failed
    assert len(bound) == 2
