"""A step as the dispatcher sees it: what no CUDA graph holds is refused, and the rest can run again."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gankernels.training import Players, graphs

aten = torch.ops.aten
READS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
FROM_HOST = {aten.lift_fresh.default, aten.lift.default}


class HostError(AssertionError):
    """An operation waits for the device, or has its data from the host."""


def tensors(of: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(of) if isinstance(leaf, Tensor)]


def storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


class Recorder(TorchDispatchMode):
    """Notes every operation inside it.

    Args:
        static: The tensors that stay where they are from step to step.

    Attributes:
        calls: Operations with arguments and results, in order.
        strangers: Operations with an input that is neither static nor made inside.
    """

    def __init__(self, static: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.static = {storage(t): t for t in static}
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []
        self.strangers: list[str] = []
        self._made: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        read = tensors((args, kwargs))
        by_mask = any(t.dtype in (torch.bool, torch.uint8) for t in read)
        if READS & set(func.tags) and (func is not aten.index.Tensor or by_mask):
            raise HostError(f"{func} depends on what the device computed")
        if func in FROM_HOST:
            raise HostError(f"{func} makes a tensor of the host's data")
        made = func(*args, **kwargs)
        written = tensors(made)
        if len({t.device for t in (*read, *written)}) > 1:
            raise HostError(f"{func} goes from one device to another")
        for tensor in read:
            if storage(tensor) not in self._made and storage(tensor) not in self.static:
                self.strangers.append(f"{func} of {tuple(tensor.shape)}")
        taken = {storage(t) for t in read}
        fresh = [t for t in written if storage(t) not in taken]
        for tensor in fresh:
            self._made[storage(tensor)] = StorageWeakRef(tensor.untyped_storage())
        self.calls.append((func, args, kwargs, fresh))
        return made

    def forget_calls(self) -> int:
        """Let go of arguments and results; how many memories made inside are still in use then."""
        self.calls.clear()
        if self._in_use():
            gc.collect()  # which takes longer than the step
        return self._in_use()

    def _in_use(self) -> int:
        return sum(not made.expired() for made in self._made.values())

    @torch.no_grad()
    def run_again(self) -> None:
        """The same operations on the same memory, as a graph is replayed."""
        for func, args, kwargs, fresh in self.calls:
            taken = {storage(t) for t in tensors((args, kwargs))}
            with torch._C._AutoDispatchBelowAutograd():
                again = [t for t in tensors(func(*args, **kwargs)) if storage(t) not in taken]
                for old, new in zip(fresh, again, strict=True):
                    old.detach().copy_(new)


def static_tensors(players: Players, *modules: nn.Module) -> list[Tensor]:
    """What stays where it is from step to step."""
    found: list[Tensor] = []
    for module in (players.generator, players.discriminator, *modules):
        found += [*module.parameters(), *module.buffers()]
    for optimizer in (players.g_optimizer, players.d_optimizer):
        found += tensors([optimizer.state_dict()["state"], optimizer.param_groups])
    if players.scaler is not None:
        found += tensors([players.scaler._scale, players.scaler._growth_tracker])
    if players.lecam is not None:
        found += players.lecam.buffers()
    return found


# --------------------------------------------------------------------- CUDA graphs, on the CPU


class Stream:
    def wait_stream(self, other: Stream) -> None:
        pass


class Graph:
    """A CUDA graph's stand-in: the capture is undone, and the replay runs its operations again."""

    def __init__(self) -> None:
        self.generators = [torch.default_generator]
        self.recorder: Recorder

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    def replay(self) -> None:
        self.recorder.run_again()


@contextlib.contextmanager
def capture(graph: Graph, static: list[Tensor]) -> Iterator[None]:
    held = [t.untyped_storage() for t in static]
    states = [g.get_state() for g in graph.generators]
    copies = [s.clone() for s in held]
    try:
        with Recorder() as graph.recorder:
            yield
    finally:
        for memory, copy in zip(held, copies, strict=True):
            memory.copy_(copy)
        for generator, state in zip(graph.generators, states, strict=True):
            generator.set_state(state)


def emulate(monkeypatch: pytest.MonkeyPatch, static: Callable[[], list[Tensor]]) -> None:
    """Have :class:`GraphedStep` run on the CPU.

    Args:
        static: What a capture must leave as it is.
    """
    monkeypatch.setattr(graphs, "check_graphable", lambda *_: None)
    stand_ins: dict[str, Any] = {
        "Stream": lambda _: Stream(),
        "current_stream": lambda _: Stream(),
        "stream": lambda _: contextlib.nullcontext(),
        "device": lambda _: contextlib.nullcontext(),
        "graph_pool_handle": lambda: None,
        "CUDAGraph": Graph,
        "graph": lambda graph, pool, stream: capture(graph, static()),
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
