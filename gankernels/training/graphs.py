"""Whole training steps as CUDA graphs: captured once for each form of the batch, then replayed.

A step of small networks is bound by the launches of its kernels. A replay is one launch, and reads
nothing from the host but the batch, which is copied into the graph's own, and the random states.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from gankernels.training.passes import batch_format
from gankernels.training.players import Metrics, Players
from gankernels.training.step_config import StepConfig

__all__ = ["WARM_UP", "GraphedStep", "WholeStep", "check_graphable", "make_capturable"]

WARM_UP = 3
"""Steps of one form that run without a graph: they compile, choose algorithms and make Adam's state."""

WholeStep = Callable[[Tensor, int], Metrics]
"""``step(real, iteration)``: what one step of a run does on the device."""


class GraphedStep:
    """A step that is captured as a CUDA graph and replayed, with the updates of the step itself.

    The first :data:`WARM_UP` batches of a form (shape, strides, dtype, whether R1 and R2 are
    due) run as they would without a graph; the next one is captured and replayed, and so are all
    after it. A last, smaller batch of an epoch is another form. All graphs share their memory.

    The optimizers are changed: their learning rate becomes a float32 tensor on the device, which a
    scheduler fills in place. After a replay the gradients are not in ``parameter.grad``.

    Args:
        step: ``step(real, iteration)`` of one of :data:`gankernels.training.steps.STEPS`, with
            whatever else happens on the device at every step. It may depend on the host through
            ``config.penalty_due(iteration)`` alone.
        players: What the step updates; optimizers are fused Adams.
        config: The options of the step.
        generators: The random generators, beside PyTorch's own of the device, that it draws from.

    Raises:
        ValueError: The step cannot be captured; the message says why.

    Example:
        >>> def step(real, iteration):  # doctest: +SKIP
        ...     return alternating_step(players, loss, real, noise, config, iteration)
        >>> graphed = GraphedStep(step, players, config, [noise_generator])  # doctest: +SKIP
        >>> metrics = graphed(next(stream), iteration)  # doctest: +SKIP
    """

    def __init__(
        self,
        step: WholeStep,
        players: Players,
        config: StepConfig,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        self._step, self._players, self._config = step, players, config
        self._generators = tuple(generators)
        self._device = next(players.generator.parameters()).device
        check_graphable(self._device, players)
        for optimizer in (players.g_optimizer, players.d_optimizer):
            make_capturable(optimizer)
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self.forget()

    def forget(self) -> None:
        """Drop all graphs: needed where tensors that the step works on were replaced by others."""
        self._graphs: dict[tuple[Any, ...], _Captured] = {}
        self._runs: Counter[tuple[Any, ...]] = Counter()
        # A pool whose graphs are gone takes no new ones.
        self._pool = torch.cuda.graph_pool_handle()

    @property
    def captured(self) -> int:
        """How many graphs there are."""
        return len(self._graphs)

    def __call__(self, real: Tensor, iteration: int = 0) -> Metrics:
        """Do one step.

        Args:
            real: ``(N, ...)`` real samples on the device of the networks.
            iteration: Number of this step, which lazy regularisation counts by.

        Returns:
            The metrics of the step, which no later step overwrites.

        Raises:
            ValueError: The step cannot be captured, or the batch is on another device.
        """
        if real.device != self._device:
            raise ValueError(f"real must be on {self._device}, as the networks, got {real.device}")
        form = (real.shape, real.stride(), real.dtype, self._config.penalty_due(iteration))
        with torch.cuda.device(self._device):
            if form not in self._graphs:
                if self._runs[form] < WARM_UP:
                    self._runs[form] += 1
                    return self._run(real, iteration)
                self._graphs[form] = self._capture(real, iteration)
            return self._graphs[form].replay(real)

    def _run(self, real: Tensor, iteration: int) -> Metrics:
        """The step without a graph, on the stream of the capture: its workspaces are made there."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            metrics = self._step(real, iteration)
        current.wait_stream(self._stream)
        return metrics

    def _capture(self, real: Tensor, iteration: int) -> _Captured:
        """Record the step, which executes nothing of it."""
        batch = torch.empty_like(batch_format(real, self._config))
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        self._drop_gradients()
        before, cause = _host_draws(), None
        try:
            with (
                torch.cuda.stream(self._stream),  # a capture that fails leaves its stream current
                torch.cuda.graph(graph, pool=self._pool, stream=self._stream),
            ):
                try:
                    metrics = self._step(batch, iteration)
                    values = torch.stack(list(metrics.values()))
                except Exception as error:
                    cause = error  # which the end of the capture would hide
                    raise
        except Exception as error:
            reason = cause or error
            raise ValueError(f"cuda_graph: the step cannot be captured: {reason}") from reason
        finally:
            self._drop_gradients()  # they are in the memory that the graphs share
        if _host_draws() != before:
            raise ValueError(
                "cuda_graph: the step cannot be captured: it draws random numbers on the host, and "
                "every replay would have the same ones"
            )
        return _Captured(graph, batch, tuple(metrics), values)

    def _drop_gradients(self) -> None:
        for network in (self._players.generator, self._players.discriminator):
            network.zero_grad(set_to_none=True)


class _Captured:
    """A graph with its input and its output."""

    def __init__(
        self, graph: torch.cuda.CUDAGraph, batch: Tensor, names: tuple[str, ...], values: Tensor
    ) -> None:
        self.graph, self.batch, self.names, self.values = graph, batch, names, values

    def replay(self, real: Tensor) -> Metrics:
        self.batch.copy_(real)
        self.graph.replay()
        # The next replay overwrites the values.
        return dict(zip(self.names, self.values.clone().unbind(), strict=True))


def check_graphable(device: torch.device, players: Players) -> None:
    """Refuse players whose step no graph can hold.

    Args:
        device: Where they are.
        players: Networks and optimizers.

    Raises:
        ValueError: The device is no CUDA device, or processes share the networks.
    """
    if device.type != "cuda":
        raise ValueError(f"cuda_graph=True needs a CUDA device, and the networks are on {device}")
    if any(
        isinstance(n, DistributedDataParallel) for n in (players.generator, players.discriminator)
    ):
        raise ValueError(
            "cuda_graph=True is for one process: DistributedDataParallel works on the host between "
            "processes, which a graph does not hold"
        )


def make_capturable(optimizer: Optimizer) -> None:
    """Have an optimizer read on the device what changes between steps: counters and learning rates.

    Raises:
        ValueError: It is no fused Adam.
    """
    for group in optimizer.param_groups:
        if not (group.get("fused") and "capturable" in group):
            raise ValueError(
                f"cuda_graph=True needs fused Adam, got {type(optimizer).__name__} with "
                f"fused={group.get('fused')}: others count steps, or look at the loss scale, on the host"
            )
        group["capturable"] = True
        if not isinstance(group["lr"], Tensor):
            # What fused Adam reads; a scheduler goes on counting from its own initial_lr.
            device = group["params"][0].device
            group["lr"] = torch.full((), group["lr"], dtype=torch.float32, device=device)


def _host_draws() -> tuple[Any, ...]:
    """The states of the host's random sources, which a replay would not advance."""
    _, keys, position, *_ = np.random.get_state(legacy=True)
    return (
        random.getstate(),
        np.asarray(keys).tobytes(),
        position,
        torch.get_rng_state().numpy().tobytes(),
    )
