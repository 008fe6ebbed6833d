"""What is another form of a call, and what is never replayed, however often it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", minversion="3.4", reason="needs Triton, whose compiler the tests run")

from gankernels.triton import operators as launchers
from gankernels.triton import replays
from gpu import triton_interpreter
from gpu.triton_cases import FLAGS, agree, d_loss
from tools.ptxsim import triton_driver

pytestmark = pytest.mark.emulated

MEAN, SUM = 1, 2


@pytest.fixture(autouse=True)
def _emulated() -> Iterator[None]:
    triton_driver.install(arch=90)
    yield
    triton_driver.sim_options.clear()


# --- what makes another form ---------------------------------------------------------------------


def offset(x: Tensor) -> Tensor:
    """Not aligned to 16 bytes."""
    return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)


def padded(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_zeros(*x.shape[:-1], 4)], -1)[..., : x.shape[-1]]


def transposed(x: Tensor) -> Tensor:
    return x.t().contiguous().t()


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


HINGE, SQUARE = (1.0, 1.0, 0.0, 1.0, 0.0), (2.0, 1.0, 0.5, 1.0, 0.0)
PLACES = (0, -1, -1, 0, 1, -1, -1, 0)


def two(
    terms: tuple[float, ...] = HINGE + SQUARE,
    reduction: int = MEAN,
    shape: tuple[int, ...] = (33,),
    scale: float = 1.0,
    grad_scale: float = 1.0,
) -> tuple[Any, ...]:
    """A call of two tensors of logits."""
    tensors = [torch.randn(shape), torch.randn(shape)]
    return (tensors, "r,f", PLACES, terms, scale, reduction, (0, 1), True, grad_scale)


def test_the_numbers_of_a_term_are_part_of_the_form(bound: list[str]) -> None:
    for terms in (HINGE + SQUARE, SQUARE + HINGE, (*HINGE, *SQUARE[:2], 0.25, *SQUARE[3:])):
        for _ in range(2):
            agree("scalar_loss", *two(terms))
    assert len(bound) == 3


def test_factors_are_not_part_of_the_form(bound: list[str]) -> None:
    """Nor is one that varies from step to step handed to a kernel as that of another step."""
    for scale, grad_scale in ((1.0, 1.0), (0.3, 1.0), (0.3, 4096.0), (7.0, -2.0), (1.0, 1.0)):
        agree("scalar_loss", *two(scale=scale, grad_scale=grad_scale))
    assert len(bound) == 1


def test_lists_of_other_lengths_are_other_forms(bound: list[str]) -> None:
    for count in (1, 2, 3, 1):
        tensors = [torch.randn(5) for _ in range(count)]
        places = [n for i in range(count) for n in (i, -1, -1, i // 2)]
        wanted = tuple(range(count))
        agree("scalar_loss", tensors, "a,b,c", places, HINGE * count, 1.0, MEAN, wanted, True, 1.0)
        agree("scale_terms", tensors, [torch.tensor(0.5)] * count, [-1] * count)
    assert len(bound) == 6


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
        triton_driver.install(arch=arch)
        with triton_driver.recorded() as launched:
            agree("realness_d_loss", *d_loss())
        assert [execution.arch for execution in launched] == [arch]
    assert len(bound) == 3  # one place for both: devices differ in their tensors' form


# --- what is never replayed ----------------------------------------------------------------------

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
        [torch.randn(4, 6), torch.randn(6, 4).t()],
        "r,f",
        PLACES,
        HINGE + SQUARE,
        1.0,
        0,
        (0, 1),
        True,
        1.0,
    ),
    "relativistic_loss, a batch across its losses": lambda: (
        torch.randn(4, 6),
        torch.randn(6, 4).t(),
        HINGE,
        SQUARE,
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
    for shape in ((0, 6), (0, 3, 4, 4)):
        for _ in range(3):
            real, fake = torch.randn(shape), torch.randn(shape)
            agree("softmax_kl_logits", real, fake, 1, reduction, *FLAGS)
            agree("relativistic_loss", real, fake, HINGE, SQUARE, reduction, *FLAGS)
            agree("scalar_loss", *two(reduction=reduction, shape=shape))


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
    assert not any(forms.replays for forms in replays._every)


def test_a_replay_checks_as_the_first_call_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its outputs come from the same C++, which refuses first."""
    agree("realness_d_loss", *d_loss())

    def refuse(name: str) -> Callable[..., Any]:
        raise ValueError(name)

    monkeypatch.setattr(launchers, "outputs_of", refuse)
    with pytest.raises(ValueError, match="realness_d_loss_value_and_grad"):
        launchers.realness_d_loss(*d_loss())
