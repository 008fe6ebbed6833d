"""The CUDA operators on CPU tensors: their own code up to the launch, and the launch in the emulator.

with launches(arch=90) as found:
    loss, g_real, g_fake = operator("realness_d_loss_value_and_grad")(real, fake, a1, a0, ...)
found[0].kernel, found[0].result.stats
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import gankernels  # noqa: F401  registers the schemas
from gankernels.triton.failures import written
from gpu.cuda import build
from tools.ptxsim import toolchain
from tools.ptxsim.occupancy import occupancy
from tools.ptxsim.simulator import KernelFault, Memory, Module, Result
from tools.ptxsim.tensors import reached

UNTOUCHED = 0xCB  # what the recorder fills new memory with
LAUNCH_FAILED = 719  # cudaErrorLaunchFailure
CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_uint),
    ctypes.POINTER(ctypes.c_uint),
    ctypes.POINTER(ctypes.c_void_p),
)

OCCUPANCY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_int)

skip_reason = None if toolchain.NVCC else "nvcc is not on PATH"


@dataclass
class Launch:
    """One launch that the launchers made, and what came of it."""

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    result: Result
    entry: str  # the mangled name


@dataclass
class Setting:
    """How launches are run."""

    arch: int
    options: dict[str, Any]
    mutate: Callable[[str], str] | None
    mark: int  # allocations before the operator was called
    far: Sequence[torch.Tensor]
    written: frozenset[int] = frozenset()  # storages that the operator says it writes, by address
    found: list[Launch] = field(default_factory=list)
    fault: KernelFault | None = None


_current: Setting | None = None
_lock = threading.Lock()


# The file of csrc/cuda that a mangled kernel is in.
FILES = {
    r"divergence_(sums_|parts_)?kernelIf": "divergence_float",
    r"divergence_(sums_|parts_)?kernelId": "divergence_double",
    r"divergence_(sums_|parts_)?kernelI6__half": "divergence_half",
    r"divergence_(sums_|parts_)?kernelI13__nv_bfloat16": "divergence_bfloat16",
    r"term_sums_kernel|term_rows_kernel|terms_of_one_block_kernel|scale_terms_kernel": "scalar_kernels",
}


def source_of(kernel: str) -> Path:
    stem = next((s for pattern, s in FILES.items() if re.search(pattern, kernel)), "elementwise")
    return build.SOURCES / "cuda" / f"{stem}.cu"


@cache
def entries(source: Path, arch: int) -> tuple[str, dict[str, str]]:
    """What stands before the kernels in a file's PTX, and the text of each."""
    ptx = build.compiled(source, arch).ptx
    start = re.compile(r"^[ \t]*(?:\.visible |\.weak )?[ \t]*\.entry (\w+)", re.M)
    found = list(start.finditer(ptx))
    ends = [m.start() for m in found[1:]] + [len(ptx)]
    texts = {m[1]: ptx[m.start() : end] for m, end in zip(found, ends, strict=True)}
    return ptx[: found[0].start()], texts


def kernel_text(kernel: str, arch: int) -> str:
    """PTX with this kernel alone: parsing all of a file takes seconds."""
    head, texts = entries(source_of(kernel), arch)
    return head + texts[kernel]


@cache
def module(kernel: str, arch: int) -> Module:
    return Module(kernel_text(kernel, arch))


@cache
def demangled(name: str) -> str:
    from tools.ptxsim.census import demangled as plain

    found = plain([name])[name].replace("gankernels::cuda::", "").replace("gankernels::", "")
    return re.sub(r"^void |\(\w*Launch\)$", "", found)


def as_bytes(address: int, size: int) -> np.ndarray[Any, Any]:
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


class _Translation:
    """CPU memory as device memory for one launch: pointers in the parameters, contents there and back."""

    def __init__(self, library: ctypes.CDLL, setting: Setting) -> None:
        self.library, self.setting, self.memory = library, setting, Memory()
        self.buffers: dict[int, tuple[Any, np.ndarray[Any, Any], bool]] = {}
        self.far = [(t.data_ptr(), self._put_far(t), reached(t)[-1][1]) for t in setting.far]

    def _put_far(self, view: torch.Tensor) -> int:
        raw = as_bytes(view.data_ptr(), view.untyped_storage().nbytes())
        pieces = {begin: raw[begin:end] for begin, end in reached(view)}
        return self.memory.put_far(pieces, "far input", view.data_ptr() % 256, readonly=True)

    def parameters(self, raw: bytes) -> bytes:
        words = np.frombuffer(raw[: len(raw) // 8 * 8], np.uint64).copy()
        for i, word in enumerate(words):
            words[i] = self.address(int(word))
        return words.tobytes() + raw[len(raw) // 8 * 8 :]

    def address(self, word: int) -> int:
        """The device address of a pointer; anything else as it is."""
        for host, device, size in self.far:
            if host <= word < host + size:
                return device + word - host
        found = (ctypes.c_uint64 * 3)()
        if word < 1 << 16 or not self.library.gk_find(ctypes.c_void_p(word), found):
            return word
        start, size, number = (int(x) for x in found)
        if start not in self.buffers:
            raw = as_bytes(start, size)
            writable = number > self.setting.mark or start in self.setting.written
            if writable and (raw == UNTOUCHED).all():
                buffer = self.memory.empty(size, np.uint8, "output", misalign=start % 256)
            else:
                buffer = self.memory.put(raw, "input", not writable, misalign=start % 256)
            self.buffers[start] = (buffer, raw, writable)
        return int(self.buffers[start][0].addr) + word - start

    def write_back(self) -> None:
        for buffer, raw, writable in self.buffers.values():
            if writable:
                raw[:] = buffer.get()


def _launch(name: bytes, grid: Any, block: Any, arguments: Any) -> int:
    setting = _current
    assert setting is not None, "a launch outside emulated.launches()"
    kernel = name.decode()
    try:
        loaded = module(kernel, setting.arch)
        if setting.mutate is not None:
            loaded = Module(setting.mutate(kernel_text(kernel, setting.arch)))
        (parameter,) = loaded.kernels[kernel].params
        translation = _Translation(library(), setting)
        raw = translation.parameters(ctypes.string_at(arguments[0], parameter.size))
        extents = tuple(grid[:3]), tuple(block[:3])
        result = loaded.launch(kernel, *extents, [raw], translation.memory, **setting.options)
        translation.write_back()
        setting.found.append(Launch(demangled(kernel), *extents, result, kernel))
    except KernelFault as fault:
        setting.fault = fault
        return LAUNCH_FAILED
    except Exception as error:  # must not leave a C callback
        setting.fault = KernelFault(repr(error))
        setting.fault.__cause__ = error
        return LAUNCH_FAILED
    return 0


def _resident_blocks(name: bytes, threads: int) -> int:
    """What the machine code of a kernel leaves room for on one multiprocessor."""
    setting, kernel = _current, name.decode()
    if setting is None:
        return 1
    report = build.report(source_of(kernel), setting.arch)[kernel]
    return occupancy(setting.arch, threads, report["regs"], report["smem"]).blocks


_callback = CALLBACK(_launch)
_occupancy = OCCUPANCY(_resident_blocks)


@cache
def kernels() -> dict[str, Callable[..., Any]]:
    return build.kernels(build.emulated_operators())


@cache
def library() -> ctypes.CDLL:
    """Builds and loads the operators; from now on every CPU tensor's memory is known."""
    path = build.emulated_operators()
    kernels()
    loaded = ctypes.CDLL(str(path))
    loaded.gk_find.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint64)]
    loaded.gk_allocations.restype = ctypes.c_uint64
    loaded.gk_record()
    loaded.gk_set_callback(_callback)
    loaded.gk_set_occupancy(_occupancy)
    return loaded


@contextlib.contextmanager
def launches(
    arch: int = 90,
    mutate: Callable[[str], str] | None = None,
    multiprocessors: int = 2,
    far: Sequence[torch.Tensor] = (),
    **options: Any,
) -> Iterator[list[Launch]]:
    """Launches inside run on this architecture; raises the KernelFault of one that faulted.

    Args:
        arch: 80, 90 or 100.
        mutate: changes the kernel's PTX first.
        multiprocessors: of the GPU that the launchers see.
        far: inputs that begin their storage and reach little of it: only that is mapped.
        options: of the emulator.
    """
    global _current
    with _lock:
        library().gk_set_multiprocessors(multiprocessors)
        _current = setting = Setting(arch, options, mutate, library().gk_allocations(), far)
        try:
            yield setting.found
        except RuntimeError:
            if setting.fault is not None:
                raise setting.fault from None
            raise
        finally:
            _current = None


class Redirected(TorchDispatchMode):
    """Operators of gankernels on CPU tensors go to the CUDA kernels of a library that ``build`` made."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "gankernels" and func._opname in kernels():
            return launch(func._opname, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def launch(name: str, *args: Any, **kwargs: Any) -> Any:
    """An operator's CUDA kernel, whatever its tensors' device; what there is now counts as its input."""
    if _current is not None:
        _current.mark = library().gk_allocations()
        overload = getattr(torch.ops.gankernels, name).default
        storages = (t.untyped_storage() for t in written(overload, args))
        _current.written = frozenset(storage.data_ptr() for storage in storages)
    return kernels()[name](*args, **kwargs)


def operator(name: str) -> Callable[..., Any]:
    """A ``gankernels`` operator on its CUDA kernel, for CPU tensors."""
    return partial(launch, name)
