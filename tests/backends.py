"""Who serves the operators on CPU tensors: their own kernels, the reference, or a GPU's kernels run on the CPU.

:func:`serve` switches in place, so that one process runs the same test on all of them.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

import torch

from gankernels import _backend, triton
from gankernels.testing import Operator

Choice = TypeVar("Choice")


class Cpu:
    """The C++ kernels; the reference where the extension is not there."""

    in_turn = False
    missing: str | None = None

    def switch_on(self) -> None:
        pass

    def switch_off(self) -> None:
        pass


class Reference(Cpu):
    """As GANKERNELS_BACKEND=reference and an extension that was not built have it."""

    def switch_on(self) -> None:
        self.extension, _backend.EXTENSION = _backend.EXTENSION, None

    def switch_off(self) -> None:
        _backend.EXTENSION = self.extension


class Gpu(Cpu):
    """Kernels of a GPU in place of the CPU's; ``calls`` of them are counted."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.library: torch.library.Library | None = None

    def kernels(self) -> dict[str, Callable[..., Any]]:
        """By the operators' names in ``torch.ops.gankernels``."""
        raise NotImplementedError

    def counted(self, name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.calls[name] += 1
            return kernel(*arguments)

        return call

    def switch_on(self) -> None:
        kernels = self.kernels()
        self.library = torch.library.Library("gankernels", "IMPL")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, at overridden kernels
            for name, kernel in kernels.items():
                self.library.impl(name, self.counted(name, kernel), "CPU", allow_override=True)

    def switch_off(self) -> None:
        assert self.library is not None
        self.library._destroy()


class Triton(Gpu):
    """The Triton launchers and kernels, by Triton's interpreter."""

    in_turn = True  # it takes milliseconds where the others take microseconds
    missing = triton.unusable()

    @cache  # noqa: B019  one instance
    def kernels(self) -> dict[str, Callable[..., Any]]:
        return {name: triton._on_first_call(name) for name in triton.implemented()}

    def switch_on(self) -> None:
        from gpu.triton_interpreter import Interpreter

        super().switch_on()
        self.interpreter = Interpreter()
        self.interpreter.switch_on()

    def switch_off(self) -> None:
        self.interpreter.switch_off()
        super().switch_off()


class Cuda(Gpu):
    """The bindings, launchers and kernels of csrc/cuda, as host C++."""

    @property
    def missing(self) -> str | None:  # type: ignore[override]
        if Triton.missing:
            return Triton.missing
        from tools.ptxsim import toolchain

        return None if toolchain.NVCC else "nvcc is not on PATH: its headers hold the types"

    @cache  # noqa: B019  one instance
    def kernels(self) -> dict[str, Callable[..., Any]]:
        from gpu.cuda import build

        return build.kernels(build.host_operators())


BACKENDS: dict[str, Cpu] = {
    "cpu": Cpu(),
    "reference": Reference(),
    "triton": Triton(),
    "cuda": Cuda(),
}
serving = "cpu"
_turn = 0


def serve(name: str, turn: int = 0) -> Cpu:
    """From here on this backend serves every call on CPU tensors.

    Args:
        name: One of ``BACKENDS``.
        turn: Where :func:`in_turn` begins.
    """
    global serving, _turn
    _turn = turn
    if name != serving:
        BACKENDS[serving].switch_off()
        serving = "cpu"
        BACKENDS[name].switch_on()
        serving = name
    return BACKENDS[name]


def in_turn(choices: Sequence[Choice]) -> Sequence[Choice]:
    """All of them; on a backend that takes its time one, another at every call and in every test."""
    global _turn
    if not BACKENDS[serving].in_turn or not choices:
        return choices
    _turn += 1
    return [choices[_turn % len(choices)]]


def affordable(usual: Choice, least: Choice) -> Choice:
    """A size, or what is asked of a backend that takes its time."""
    return least if BACKENDS[serving].in_turn else usual


def available() -> Iterator[str]:
    """Those that this machine can run, of which ``"cpu"`` may be the reference."""
    for name, backend in BACKENDS.items():
        if name == "cpu" or (_backend.EXTENSION is not None and backend.missing is None):
            yield name


def serves(operator: Operator) -> bool:
    """Whether a row of the operator table has kernels that differ from backend to backend."""
    return not implemented().isdisjoint(operator.compiled)


@cache
def implemented() -> frozenset[str]:
    """Asked for every test, and by torch looked for among thousands of operators."""
    return frozenset(triton.implemented())
