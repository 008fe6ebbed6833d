"""The Triton code that Inductor generates for a GPU that is not there, and its launches in the emulator.

A formula is traced with its backward on CPU tensors, cut into the two graphs that torch.compile makes of it, and
handed to Inductor as graphs of a GPU's tensors. The module that Inductor writes then runs on CPU tensors, its
kernels in the emulator. Of the configurations that Inductor names for a kernel its autotuner takes the fastest by
the clock; without one, the one with the best bound is taken.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import tempfile
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch._dynamo.device_interface as device_interface
import torch._functorch.aot_autograd as aot
import torch._inductor.async_compile as async_compile
import torch._inductor.config as inductor_config
import torch._subclasses.fake_tensor as fake_tensor
from torch import Tensor, fx
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor import compile_fx
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.exc import InductorError
from torch._inductor.fx_passes.joint_graph import joint_graph_passes
from torch._inductor.graph import GraphLowering
from torch._inductor.runtime import triton_helpers
from torch._inductor.runtime.triton_heuristics import GridExpr
from torch.utils import _triton
from torch.utils._python_dispatch import _disable_current_modes

from tools.gpu_table.peers_counts import (
    ARCH,
    BLOCKS,
    GPU,
    Launch,
    Problem,
    launches,
    of_execution,
    without_ones,
)
from tools.ptxsim import triton_driver
from tools.ptxsim.occupancy import MULTIPROCESSORS

PROPERTIES = types.SimpleNamespace(
    name=GPU.name,
    major=ARCH // 10,
    minor=ARCH % 10,
    multi_processor_count=GPU.multiprocessors,
    regs_per_multiprocessor=MULTIPROCESSORS[ARCH].registers,
    max_threads_per_multi_processor=MULTIPROCESSORS[ARCH].threads,
    max_threads_per_block=1024,
    shared_memory_per_block=48 << 10,
    shared_memory_per_block_optin=MULTIPROCESSORS[ARCH].shared_per_block,
    warp_size=32,
    total_memory=80 << 30,
)
Formula = Callable[..., Tensor]
Graph = tuple[fx.GraphModule, list[Any]]


@contextlib.contextmanager
def device() -> Iterator[None]:
    """What PyTorch is told about the GPU."""
    interface, guards = device_interface.CudaInterface, torch._C._dynamo.guards
    answers: list[tuple[Any, dict[str, Any]]] = [
        (
            torch.cuda,
            {
                "is_available": lambda: True,
                "device_count": lambda: 1,
                "current_device": lambda: 0,
                "set_device": lambda index: None,
                "get_device_properties": lambda *of: PROPERTIES,
                "get_device_capability": lambda *of: (ARCH // 10, ARCH % 10),
                "get_rng_state": lambda *of: torch.zeros(16, dtype=torch.uint8),
                "set_rng_state": lambda *state: None,
                "_lazy_init": lambda: None,
                "_exchange_device": lambda index: 0,
                "_maybe_exchange_device": lambda index: 0,
                "_DeviceGuard": contextlib.nullcontext,
            },
        ),
        (
            interface,
            {
                "is_available": staticmethod(lambda: True),
                "current_device": staticmethod(lambda: 0),
                "get_device_properties": staticmethod(lambda *of: PROPERTIES),
                "get_compute_capability": staticmethod(lambda *of: ARCH),
                "is_triton_capable": staticmethod(lambda *of: True),
                "raise_if_triton_unavailable": staticmethod(lambda *of: None),
            },
        ),
        (interface.Worker, {"get_device_properties": staticmethod(lambda *of: PROPERTIES)}),
        (fake_tensor, {"init_gpu_context": lambda device: None}),
        (triton_helpers, {"set_driver_to_gpu": lambda: None}),
        (guards, {"_empty_strided_cuda": new_tensor}),
        (torch._C, {"_cuda_getCurrentRawStream": lambda index: 0}),
        (async_compile, {"AsyncCompile": Kernels}),
    ]
    with contextlib.ExitStack() as stack:
        for owner, named in answers:
            for name, answer in named.items():
                stack.enter_context(mock.patch.object(owner, name, answer, create=True))
        _triton.has_triton.cache_clear()
        stack.callback(_triton.has_triton.cache_clear)
        yield


def new_tensor(size: Any, stride: Any, dtype: torch.dtype) -> Tensor:
    """Zeros: of a launch only some blocks run, and the next one reads what the others would have written."""
    with _disable_current_modes():
        return torch.empty_strided(size, stride, dtype=dtype).zero_()


class Kernels:
    """Stands in for Inductor's compiler of kernels."""

    def triton(self, name: str, source: str, device_str: str) -> Kernel:
        module = loaded(source)
        return Kernel(getattr(module, name))

    def wait(self, scope: dict[str, Any]) -> None:
        pass


class Kernel:
    """A generated kernel, and its configuration once that has been chosen."""

    def __init__(self, tuner: Any) -> None:
        self.tuner, self.config = tuner, None

    def run(self, *args: Any, stream: int) -> None:
        configs = self.tuner.configs
        if self.config is None:
            best = partial(self.bound, args=args)
            self.config = min(configs, key=best) if len(configs) > 1 else configs[0]
        with triton_driver.recorded() as runs:
            self.launch(self.config, args)
        runs[0].configuration = f"{self.config}, one of {len(configs)}"

    def bound(self, config: Any, args: tuple[Any, ...]) -> float:
        """Seconds, from a trial of which nothing is left."""
        written = self.tuner.mutated_arg_names
        named = zip(args, self.tuner.fn.arg_names, strict=False)
        with _disable_current_modes():  # the copies count for nobody
            copies = tuple(a.clone() if name in written else a for a, name in named)
        with triton_driver.recorded(alone=True) as runs:
            self.launch(config, copies)
        return of_execution(runs[0]).seconds

    def launch(self, config: Any, args: tuple[Any, ...]) -> None:
        chosen, function = config.kwargs, self.tuner.fn
        named = dict(zip(function.arg_names, args, strict=False))
        grid = GridExpr.from_meta(self.tuner.inductor_meta, config).eval_slow(named | chosen)
        how = {"num_warps": config.num_warps, "num_stages": config.num_stages}
        function[grid](*args, **chosen, **how)


_numbers = itertools.count()
_directory = tempfile.TemporaryDirectory()


def loaded(source: str) -> types.ModuleType:
    """A module from its text, in a file because Triton reads the text of its kernels there."""
    path = Path(_directory.name) / f"generated_{next(_numbers)}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def traced(formula: Formula, inputs: list[Tensor]) -> list[Graph]:
    """The forward and the backward graph, as torch.compile's partitioner cuts them."""
    graphs: list[Graph] = []

    def keep(graph: fx.GraphModule, given: list[Any]) -> Any:
        graphs.append((graph, given))
        return aot.make_boxed_func(graph.forward)

    def cut(graph: fx.GraphModule, given: Any, **how: Any) -> Any:
        joint_graph_passes(graph)
        return min_cut_rematerialization_partition(graph, given, compiler="inductor", **how)

    function = aot.aot_function(
        formula,
        fw_compiler=keep,
        bw_compiler=keep,
        partition_fn=cut,
        decompositions=select_decomp_table(),
    )
    loss = function(*inputs)
    torch.autograd.grad(loss, [x for x in inputs if x.requires_grad], torch.ones_like(loss))
    return graphs


def generated(graph: fx.GraphModule, inputs: list[Any], is_backward: bool) -> str:
    """What Inductor writes for the graph, moved to a GPU. Call within :func:`device`."""
    for node in graph.graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": torch.device("cuda", 0)}
    graph.recompile()
    with fake_tensor.FakeTensorMode():
        given = [
            torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda:0") for x in inputs
        ]
    sources: list[str] = []

    def write(lowering: GraphLowering) -> None:
        sources.append(lowering.codegen()[0].value)
        raise NotImplementedError("nothing of it is loaded on a device")

    settings = {"compile_threads": 1, "fx_graph_cache": False, "fx_graph_remote_cache": False}
    with (
        inductor_config.patch(settings),
        mock.patch.object(GraphLowering, "compile_to_module", write),
    ):
        try:
            compile_fx.compile_fx_inner(graph, given, is_backward=is_backward)
        except InductorError:
            if not sources:
                raise
    return sources[0]


def run(
    formula: Formula, problem: Problem, blocks: int = BLOCKS
) -> tuple[list[Launch], list[Tensor]]:
    """The formula, forward and backward.

    Returns:
        The launches; the loss and the gradients, complete where all blocks ran.
    """
    inputs = problem.inputs()
    small = [x.detach().requires_grad_(x.requires_grad) for x in inputs]
    graphs = traced(formula, small)
    triton_driver.install(arch=ARCH)
    with device():
        modules = [loaded(generated(g, x, i == 1)) for i, (g, x) in enumerate(graphs)]
        with torch.no_grad(), launches(blocks) as found:
            loss, *saved = modules[0].call([x.detach() for x in inputs])
            gradients = modules[1].call([*saved, torch.ones_like(loss)])
    return without_ones(found), [loss, *gradients[:2]]
