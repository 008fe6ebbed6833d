"""A Triton driver for a GPU that is not there.

``kernel[grid](cpu_tensor, ...)`` goes through Triton's real JIT: specialisation, all passes, PTX, and ptxas for
sm_80, sm_90 or sm_100; then the simulator runs the PTX.

Example:
    triton_driver.install(arch=90)             # before the first launch; not with TRITON_INTERPRET=1
    k = kernel[(grid,)](x, y, n, BLOCK=1024)   # x, y: CPU tensors
    k.n_regs, k.n_spills, triton_driver.last.stats
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from . import census, simulator
from .execution import Execution
from .initcheck import UNWRITTEN
from .occupancy import MULTIPROCESSORS
from .pointer_use import pointer_use
from .tensors import Image, reached
from .toolchain import resource_usage

assert census.note in simulator.OBSERVERS  # every launch counts

last: simulator.Result | None = None
sim_options: dict[str, Any] = {}
# Of a launch only so many blocks are run, where it is set: the first ones along x.
most_blocks: int | None = None
# Called after every launch; a test may add to it.
listeners: list[Callable[[Execution], None]] = []


@dataclasses.dataclass
class Binary:
    """A loaded kernel: its PTX to run, its machine code and Triton's own representation to look at."""

    name: str
    module: simulator.Module
    cubin: bytes
    shared: int
    ir: str


class Utils:
    """What Triton asks of a driver about devices and binaries."""

    def __init__(self, arch: int) -> None:
        self.arch = arch
        # By machine code: the files of all stages of it.
        self.compiled: dict[bytes, dict[str, pathlib.Path]] = {}

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {
            "max_shared_mem": MULTIPROCESSORS[self.arch].shared_per_block,
            "multiprocessor_count": 132,
            "max_num_regs": 65536,
            "warpSize": 32,
            "sm_clock_rate": 1,
            "mem_clock_rate": 1,
            "mem_bus_width": 1,
        }

    def load_binary(
        self, name: str, cubin: bytes, shared: int, device: int
    ) -> tuple[simulator.Module, Binary, int, int, int]:
        usage = next(iter(resource_usage(cubin).values()))
        stages = self.compiled[cubin]
        module, ir = simulator.Module(stages[".ptx"].read_text()), stages[".ttir"].read_text()
        binary = Binary(name, module, cubin, shared, ir)
        spills = usage["STACK"] + usage["LOCAL"]
        return binary.module, binary, usage["REG"], spills, 1024

    def unload_module(self, module: simulator.Module) -> None:
        pass


def typed(types: Iterable[Any], items: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """A kernel's arguments with their types; of a tuple, unless it is a constant, the items."""
    for type_, item in zip(types, items, strict=True):
        if isinstance(type_, tuple):
            yield from typed(type_, item)
        else:
            yield str(type_), item


class Launcher:
    """Runs one compiled kernel on the arguments of a launch."""

    def __init__(self, source: Any, metadata: Any) -> None:
        self.types = tuple(source.signature.values())
        self.signature = [type_ for type_, _ in typed(self.types, self.types)]
        self.threads = metadata.num_warps * 32
        descriptors = any("tensordesc" in type_ for type_ in self.signature)
        if metadata.global_scratch_size or metadata.num_ctas != 1 or descriptors:
            raise simulator.Unsupported("clusters, TMA descriptors, global scratch memory")

    def __call__(
        self,
        grid_x: int,
        grid_y: int,
        grid_z: int,
        stream: int,
        function: Binary,
        packed: Any,
        launch_metadata: Any,
        enter: Any,
        leave: Any,
        *args: Any,
    ) -> None:
        global last
        module, name = function.module, function.name
        module.element_types = self.element_types()
        memory = simulator.Memory()
        arguments = [a for type_, a in typed(self.types, args) if type_ != "constexpr"]
        image = Image(memory, [a for a in arguments if isinstance(a, torch.Tensor)], UNWRITTEN)
        given = [self.value(a, image) for a in arguments]
        scratch = [0] * (len(module.kernels[name].params) - len(given))
        grid = (grid_x if most_blocks is None else min(grid_x, most_blocks), grid_y, grid_z)
        last = module.launch(
            name, grid, self.threads, given + scratch, memory, shared=function.shared, **sim_options
        )
        image.copy_back()
        execution = Execution(
            name, module.arch, function.cubin, self.threads, function.shared, last, function.ir
        )
        execution.blocks, execution.blocks_run = grid_x * grid_y * grid_z, math.prod(grid)
        if most_blocks is not None:
            execution.traffic = traffic(function.ir, arguments)
        for listener in listeners:
            listener(execution)

    def element_types(self) -> tuple[str, ...]:
        pointers = [t.removeprefix("*").removeprefix("k") for t in self.signature if "*" in t]
        return tuple(dict.fromkeys(pointers))

    @staticmethod
    def value(argument: Any, image: Image) -> Any:
        if isinstance(argument, torch.Tensor):
            return image.address(argument)
        if argument is None:
            return 0
        return int(argument) if isinstance(argument, bool) else argument


def traffic(ir: str, arguments: Iterable[Any]) -> int:
    """Bytes of a launch's tensors, once where they are loaded and once where they are stored."""
    tensors = [a for a in arguments if isinstance(a, torch.Tensor)]
    return sum(
        (use.loads + use.stores) * sum(end - begin for begin, end in reached(tensor))
        for use, tensor in zip(pointer_use(ir), tensors, strict=True)
    )


class PtxSimDriver:
    """Triton's driver interface on top of the simulator."""

    launcher_cls = Launcher

    def __init__(self, arch: int) -> None:
        self.arch, self.utils = arch, Utils(arch)

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        """One device per architecture: Triton keeps what it compiled by the number of the device."""
        return self.arch

    def set_current_device(self, device: int) -> None:
        pass

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_interface(self) -> Any:
        return torch.cpu

    def get_benchmarker(self) -> Any:
        """Autotuning runs every configuration once; all are equally fast."""

        def benchmark(function: Any, quantiles: Any = None, **_: Any) -> list[float]:
            function()
            return [1.0] * 3

        return benchmark

    def map_python_to_cpp_type(self, type_: str) -> str:
        return type_


def install(arch: int = 90, **options: Any) -> PtxSimDriver:
    """Make the simulator Triton's device; ``options`` are those of ``simulator.Module.launch``."""
    device = PtxSimDriver(arch)
    driver.set_active(device)
    sim_options.clear()
    sim_options.update(options)

    def remember(metadata_group: dict[str, str], **_: Any) -> None:
        stages = {
            pathlib.Path(name).suffix: pathlib.Path(path) for name, path in metadata_group.items()
        }
        if ".cubin" in stages:  # not of an AMD GPU
            device.utils.compiled[stages[".cubin"].read_bytes()] = stages

    knobs.compilation.listener = remember
    return device


@contextmanager
def options(**changed: Any) -> Iterator[None]:
    """Launch options for a while: ``with triton_driver.options(schedule="warps"):``."""
    before = dict(sim_options)
    sim_options.update(changed)
    try:
        yield
    finally:
        sim_options.clear()
        sim_options.update(before)


@contextmanager
def first_blocks(most: int) -> Iterator[None]:
    """Of a launch only the first blocks along x run, so many: the rest of the results is not written."""
    global most_blocks
    before, most_blocks = most_blocks, most
    try:
        yield
    finally:
        most_blocks = before


@contextmanager
def recorded(alone: bool = False) -> Iterator[list[Execution]]:
    """The launches of a block: ``with triton_driver.recorded() as launches:``.

    Args:
        alone: other listeners do not hear of them.
    """
    found: list[Execution] = []
    before = listeners[:]
    listeners[:] = [found.append] if alone else [*before, found.append]
    try:
        yield found
    finally:
        listeners[:] = before
