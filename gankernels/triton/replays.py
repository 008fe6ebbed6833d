"""Launches made again without what the first call of a form worked out: geometry, plans, Triton's binding.

A kernel's arguments follow from the form of a call, but for which tensors they are. What is kept of a
call says of each argument which of the call's tensors it is, or its value; never a tensor.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import wraps
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar, cast

import torch
import triton
from torch import Tensor
from triton.compiler import CompiledKernel
from triton.runtime import driver

from gankernels.triton.tickets import ticket

# Forms that an operator keeps; the one that was not called for longest goes first.
MOST_FORMS = 256
# From this version on a compiled kernel takes all arguments of its source, constants too.
ABLE = tuple(int(n) for n in triton.__version__.split(".")[:2]) >= (3, 4)
# AMD's compiler asks how large a pointer's storage is.
BY_STORAGE = torch.version.hip is not None
INT32_MAX = 2**31 - 1

Function = TypeVar("Function", bound=Callable[..., Any])
Form = tuple[Any, ...]


def form_of(arguments: Sequence[Any]) -> tuple[Form, list[Tensor]]:
    """What a call's launches follow from, and the call's tensors.

    A tensor counts with what the kernels' arguments and Triton's specialisation depend on, and with
    the tensor before it that begins where it does. Floats count bit for bit: -0.0 is not 0.0.
    """
    form: list[Any] = []
    tensors: list[Tensor] = []
    places: list[int] = []
    for given in arguments:
        if isinstance(given, Tensor):
            place = given.data_ptr()
            tensors.append(given)
            places.append(place)
            form.append(
                (
                    given.shape,
                    given.stride(),
                    given.dtype,
                    given.get_device(),
                    place % 16,
                    places.index(place),
                )
            )
            if BY_STORAGE:
                form.append(given.untyped_storage().nbytes() > INT32_MAX)
        elif isinstance(given, float):
            form.append(given.hex())
        elif isinstance(given, list | tuple):
            form.append(array("d", given).tobytes())
        else:
            form.append(given)
    return tuple(form), tensors


class Launch(NamedTuple):
    """A compiled kernel on its grid, and which of a call's values are its arguments."""

    run: Callable[..., Any]
    arguments: Callable[[Sequence[Any]], tuple[Any, ...]]


class Replay(NamedTuple):
    """The launches of a call, for tensors that are not known yet.

    Attributes:
        active: Triton's number of the device that the kernels were compiled for.
        device: Where scratch memory and tickets are.
        scratch: The shape of each piece of float64 scratch memory.
        tickets: How many there are.
        values: The arguments that are no tensors.
        launches: One after the other.
    """

    active: int
    device: torch.device
    scratch: tuple[tuple[int, ...], ...]
    tickets: int
    values: tuple[Any, ...]
    launches: tuple[Launch, ...]

    def __call__(self, inputs: list[Tensor], outputs: tuple[Tensor, ...]) -> None:
        values: list[Any] = [*inputs, *outputs]
        for shape in self.scratch:
            values.append(torch.empty(shape, dtype=torch.float64, device=self.device))
        for _ in range(self.tickets):
            values.append(ticket(self.device))
        values += self.values
        for run, arguments in self.launches:
            run(*arguments(values))


class Recording:
    """What a call launches and allocates, while it lasts."""

    def __init__(self) -> None:
        self.launches: list[tuple[Any, int, list[Any]]] = []
        self.scratch: list[Tensor] = []
        self.tickets: list[Tensor] = []

    def launched(
        self, kernel: Any, compiled: Any, programs: int, arguments: Sequence[Any], named: Any
    ) -> None:
        given: list[Any] = []
        if isinstance(compiled, CompiledKernel):  # None under Triton's interpreter
            given = [*arguments, *(named[n] for n in kernel.arg_names[len(arguments) :])]
        self.launches.append((compiled, programs, given))

    def replay(self, inputs: list[Tensor], outputs: tuple[Tensor, ...]) -> Replay | None:
        """How to make the launches again; None where copies were made, or something without a launch."""
        if not ABLE or not all(isinstance(c, CompiledKernel) for c, _, _ in self.launches):
            return None
        slots = [*inputs, *outputs, *self.scratch, *self.tickets]
        slot_of: dict[tuple[int, torch.dtype], int] = {}
        for i, slot in enumerate(slots):
            slot_of.setdefault((slot.data_ptr(), slot.dtype), i)
        values: list[Any] = []
        launches: list[Launch] = []
        used: set[int | None] = set()
        for compiled, programs, arguments in self.launches:
            indices: list[int | None] = []
            for given in arguments:
                if isinstance(given, Tensor):
                    indices.append(slot_of.get((given.data_ptr(), given.dtype)))
                else:
                    indices.append(len(slots) + len(values))
                    values.append(given)
            used.update(indices)
            launches.append(Launch(compiled[(programs, 1, 1)], itemgetter(*indices)))
        written = (len(inputs) + i for i, out in enumerate(outputs) if out.numel())
        if not launches or None in used or not used.issuperset(written):
            return None
        scratch = tuple(tuple(s.shape) for s in self.scratch)
        active = driver.active.get_current_device()
        device = outputs[0].device
        return Replay(active, device, scratch, len(self.tickets), tuple(values), tuple(launches))


class _OfThread(threading.local):
    recording: Recording | None = None


_of_thread = _OfThread()


def current() -> Recording | None:
    """What records this thread's call, if anything does."""
    return _of_thread.recording


class Forms:
    """The replays of one operator; None of a form that has none."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.replays: OrderedDict[Form, Replay | None] = OrderedDict()

    def find(self, form: Form) -> tuple[bool, Replay | None]:
        """Whether the form is known, and its replay."""
        with self.lock:
            try:
                self.replays.move_to_end(form)
            except KeyError:
                return False, None
            return True, self.replays[form]

    def keep(self, form: Form, replay: Replay | None) -> None:
        with self.lock:
            self.replays[form] = replay
            self.replays.move_to_end(form)
            while len(self.replays) > MOST_FORMS:
                self.replays.popitem(last=False)


_every: list[Forms] = []


def forget() -> None:
    """Nothing is replayed that was launched before: for those who change kernels or how they are run."""
    for forms in _every:
        with forms.lock:
            forms.replays.clear()


def _tuple(outputs: Any) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def replayed(allocate: Callable[..., Any]) -> Callable[[Function], Function]:
    """Replays an operator's launches from the second call of a form on.

    Args:
        allocate: Checks the operator's arguments and gives its outputs, as the operator itself does.
    """

    def decorate(operator: Function) -> Function:
        forms = Forms()
        _every.append(forms)

        def recorded(form: Form, inputs: list[Tensor], arguments: Sequence[Any]) -> Any:
            around, _of_thread.recording = _of_thread.recording, Recording()
            try:
                outputs = operator(*arguments)
                forms.keep(form, _of_thread.recording.replay(inputs, _tuple(outputs)))
            finally:
                _of_thread.recording = around
            return outputs

        @wraps(operator)
        def call(*arguments: Any) -> Any:
            form, inputs = form_of(arguments)
            known, replay = forms.find(form)
            if not known:
                return recorded(form, inputs, arguments)
            if replay is None:
                return operator(*arguments)
            if replay.active != driver.active.get_current_device():
                return recorded(form, inputs, arguments)
            outputs = allocate(*arguments)
            replay(inputs, _tuple(outputs))
            return outputs

        return cast(Function, call)

    return decorate
