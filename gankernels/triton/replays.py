"""Launches made again without what the first call of a form worked out: geometry, plans, Triton's binding.

A kernel's arguments follow from the form of a call, but for which tensors they are. What is kept of a
call says of each argument which of the call's tensors it is, or its value; never a tensor.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from functools import wraps
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from triton.compiler import CompiledKernel
from triton.runtime import driver

from gankernels.triton.tickets import ticket

# Forms that an operator keeps; the one that was not called for longest goes first.
MOST_FORMS = 256
# AMD's compiler asks how large a pointer's storage is.
BY_STORAGE = torch.version.hip is not None
INT32_MAX = 2**31 - 1

Function = TypeVar("Function", bound=Callable[..., Any])
Form = tuple[Any, ...]


def form_of(arguments: Sequence[Any], free: Collection[int] = ()) -> tuple[Form, list[Tensor]]:
    """What a call's launches follow from, and the call's tensors.

    The arguments at the places ``free`` are handed to the kernels as they come, and count for nothing.

    A tensor counts with what the kernels' arguments and Triton's specialisation depend on, and with
    the tensor before it that begins where it does. Floats count bit for bit: -0.0 is not 0.0.
    """
    form: list[Any] = []
    tensors: list[Tensor] = []
    places: list[int] = []

    def add(tensor: Tensor) -> None:
        place = tensor.data_ptr()
        tensors.append(tensor)
        places.append(place)
        form.append(
            (
                tensor.shape,
                tensor.stride(),
                tensor.dtype,
                tensor.get_device(),
                place % 16,
                places.index(place),
            )
        )
        if BY_STORAGE:
            form.append(tensor.untyped_storage().nbytes() > INT32_MAX)

    for at, given in enumerate(arguments):
        if isinstance(given, Tensor):
            add(given)
        elif at in free:
            continue
        elif isinstance(given, float):
            form.append(given.hex())
        elif isinstance(given, list | tuple):
            form.append(len(given))
            if given and isinstance(given[0], Tensor):
                for tensor in given:
                    add(tensor)
            elif given and isinstance(given[0], float):
                form.append(array("d", given).tobytes())
            else:
                form.extend(given)
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

    def __call__(
        self, inputs: list[Tensor], outputs: tuple[Tensor, ...], floats: Sequence[float]
    ) -> None:
        values: list[Any] = [*inputs, *outputs]
        for shape in self.scratch:
            values.append(torch.empty(shape, dtype=torch.float64, device=self.device))
        for _ in range(self.tickets):
            values.append(ticket(self.device))
        values += floats
        values += self.values
        for run, arguments in self.launches:
            run(*arguments(values))


class Free(NamedTuple):
    """In place of a number that a call hands to its kernels as it comes: which of those it is."""

    number: int


class Recording:
    """What a call launches and allocates, while it lasts.

    Args:
        free: Names of kernel arguments that are the call's own numbers.
    """

    def __init__(self, free: Sequence[str] = ()) -> None:
        self.free = list(free)
        self.launches: list[tuple[Any, int, list[Any]]] = []
        self.scratch: list[Tensor] = []
        self.tickets: list[Tensor] = []

    def launched(
        self, kernel: Any, compiled: Any, programs: int, arguments: Sequence[Any], named: Any
    ) -> None:
        given: list[Any] = []
        if isinstance(compiled, CompiledKernel):  # None under Triton's interpreter
            given = [*arguments, *(named[n] for n in kernel.arg_names[len(arguments) :])]
            for i, name in enumerate(kernel.arg_names):
                if name in self.free:
                    given[i] = Free(self.free.index(name))
        self.launches.append((compiled, programs, given))

    def replay(self, inputs: list[Tensor], outputs: tuple[Tensor, ...]) -> Replay | None:
        """How to make the launches again; None where copies were made, or something without a launch."""
        if not all(isinstance(c, CompiledKernel) for c, _, _ in self.launches):
            return None
        slots = [*inputs, *outputs, *self.scratch, *self.tickets]
        slot_of: dict[tuple[int, torch.dtype], int] = {}
        for i, slot in enumerate(slots):
            slot_of.setdefault((slot.data_ptr(), slot.dtype), i)
        free = len(slots)
        values: list[Any] = []
        launches: list[Launch] = []
        used: set[int | None] = set()
        for compiled, programs, arguments in self.launches:
            indices: list[Any] = []
            for given in arguments:
                if isinstance(given, tuple) and any(isinstance(x, Tensor) for x in given):
                    indices.append(tuple(slot_of.get((x.data_ptr(), x.dtype)) for x in given))
                    used.update(indices[-1])
                elif isinstance(given, Tensor):
                    indices.append(slot_of.get((given.data_ptr(), given.dtype)))
                    used.add(indices[-1])
                elif isinstance(given, Free):
                    indices.append(free + given.number)
                else:
                    indices.append(free + len(self.free) + len(values))
                    values.append(given)
            launches.append(Launch(compiled[(programs, 1, 1)], _picker(indices)))
        written = (len(inputs) + i for i, out in enumerate(outputs) if out.numel())
        if not launches or None in used or not used.issuperset(written):
            return None
        scratch = tuple(tuple(s.shape) for s in self.scratch)
        active = driver.active.get_current_device()
        device = slots[0].device
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


def _picker(indices: list[Any]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Values by their indices; a tuple of indices is an argument that is a tuple."""
    if None in indices or not any(isinstance(i, tuple) for i in indices):
        return cast(
            "Callable[[Sequence[Any]], tuple[Any, ...]]", itemgetter(*(i or 0 for i in indices))
        )

    def pick(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(
            tuple(values[k] for k in i) if isinstance(i, tuple) else values[i] for i in indices
        )

    return pick


def _tuple(outputs: Any) -> tuple[Tensor, ...]:
    if outputs is None:  # of an operator that writes its arguments
        return ()
    if isinstance(outputs, Tensor):
        return (outputs,)
    return tuple(tensor for x in outputs for tensor in _tuple(x))


def replayed(allocate: Callable[..., Any], **free: int) -> Callable[[Function], Function]:
    """Replays an operator's launches from the second call of a form on.

    Args:
        allocate: Checks the operator's arguments and gives its outputs, as the operator itself does.
        free: Floats on which nothing depends but the kernels, which take them as they are: where each is
            among the operator's arguments, by its name among a kernel's.
    """

    def decorate(operator: Function) -> Function:
        forms, places = Forms(), set(free.values())
        _every.append(forms)

        def recorded(form: Form, inputs: list[Tensor], arguments: Sequence[Any]) -> Any:
            around, _of_thread.recording = _of_thread.recording, Recording(list(free))
            try:
                outputs = operator(*arguments)
                forms.keep(form, _of_thread.recording.replay(inputs, _tuple(outputs)))
            finally:
                _of_thread.recording = around
            return outputs

        @wraps(operator)
        def call(*arguments: Any) -> Any:
            form, inputs = form_of(arguments, places)
            known, replay = forms.find(form)
            if not known:
                return recorded(form, inputs, arguments)
            if replay is None:
                return operator(*arguments)
            if replay.active != driver.active.get_current_device():
                return recorded(form, inputs, arguments)
            outputs = allocate(*arguments)
            replay(inputs, _tuple(outputs), [arguments[at] for at in free.values()])
            return outputs

        return cast(Function, call)

    return decorate
