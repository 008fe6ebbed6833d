"""Whole training steps of the three systems: the article's loop as written against the package's.

Every contender lives in a process of its own, so that compiled code, allocator settings and peak
memory are its own; the processes are timed in turn, round after round. Before the clock starts,
each contender's parameters after a few float64 steps are compared with the plain loop that it must
equal.
"""

from __future__ import annotations

import gc
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn

import gankernels as gk
from benchmarks import article_loops
from gankernels.training import Players, StepConfig
from gankernels.training.malloc import keep_pages
from gankernels.training.networks import dcgan_small, grl_mlp, realness_article
from gankernels.training.players import adam, prepare
from gankernels.training.steps import STEPS

BATCH = 128
CHECK_BATCH = 8
CHECK_STEPS = 3
TOLERANCE = 1e-6  # of each tensor's largest entry, after CHECK_STEPS float64 steps
WARM_UP = 3
STEPS_PER_BLOCK = 3


@dataclass(frozen=True)
class System:
    """A pair of networks, its data and its optimizers."""

    build: Callable[[], tuple[nn.Module, nn.Module]]
    image: tuple[int, int, int]
    noise_dim: int = 100
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.9)
    shared_optimizer: bool = False


SYSTEMS = {
    "realness": System(
        lambda: realness_article(32, 3, 20, 100), (3, 32, 32), 100, 1e-4, (0.0, 0.9)
    ),
    "dcgan": System(lambda: dcgan_small(28, 1), (1, 28, 28)),
    "dcgan, no norm in D": System(lambda: dcgan_small(28, 1, d_batch_norm=False), (1, 28, 28)),
    "grl": System(lambda: grl_mlp(28, 1, dropout=0.0), (1, 28, 28), shared_optimizer=True),
}


@dataclass(frozen=True)
class Contender:
    """One way to take a training step.

    Args:
        name: As in the table; the first of a system is the baseline of its ratios.
        system: Key of :data:`SYSTEMS`.
        step: ``"article"`` for the article's loop, else a key of the package's steps.
        objective: Of the realness loss.
        must_equal: ``"article"`` or ``"simultaneous"``: the plain loop with the same updates.
        pages: Whether the process keeps its pages, as the command line does.
        options: Of :class:`StepConfig`.
    """

    name: str
    system: str
    step: str
    objective: int = 2
    must_equal: str = "article"
    pages: bool = False
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def config(self) -> StepConfig:
        return StepConfig(**dict(self.options))


def _plain(**changes: Any) -> tuple[tuple[str, Any], ...]:
    """What PyTorch does unless told otherwise, plus ``changes``."""
    base = {"channels_last": False, "optimizer": "loop", "grad_norms": False}
    return tuple((base | changes).items())


def _realness() -> list[Contender]:
    fast = _plain(channels_last=True, optimizer="fused")
    compiled = _plain(channels_last=True, optimizer="fused", compile=True)
    simultaneous = {"must_equal": "simultaneous"}
    made = [
        ("article's loop", "article", {}, _plain(), {}),
        ("article's loop, objective 1", "article", {"objective": 1}, _plain(), {}),
        ("article's loop, channels-last", "article", {}, _plain(channels_last=True), {}),
        ("article's loop, torch.compile", "article", {}, _plain(compile=True), {}),
        (
            "article's loop, channels-last, fused Adam, torch.compile",
            "article",
            {},
            compiled,
            {},
        ),
        ("article's loop, pages kept", "article", {"pages": True}, _plain(), {}),
        ("alternating: waste removed", "alternating", {}, _plain(), {}),
        ("alternating: waste removed, pages kept", "alternating", {"pages": True}, _plain(), {}),
        ("alternating + channels-last", "alternating", {}, _plain(channels_last=True), {}),
        ("alternating + channels-last, fused Adam", "alternating", {}, fast, {}),
        ("alternating + the same, pages kept", "alternating", {"pages": True}, fast, {}),
        ("alternating + the same, torch.compile", "alternating", {"pages": True}, compiled, {}),
        ("one-pass, objective 2", "one_pass", {"pages": True}, fast, simultaneous),
        ("one-pass, torch.compile", "one_pass", {"pages": True}, compiled, simultaneous),
        (
            "reversal, objective 1",
            "reversal",
            {"pages": True, "objective": 1},
            fast,
            simultaneous,
        ),
        (
            "reversal, torch.compile",
            "reversal",
            {"pages": True, "objective": 1},
            compiled,
            simultaneous,
        ),
    ]
    return [
        Contender(name, "realness", step, options=options, **settings, **equal)
        for name, step, settings, options, equal in made
    ]


def _dcgan(system: str, one_pass: str) -> list[Contender]:
    order = {"order": "g_first", "fake_first": True}
    fast = _plain(channels_last=True, optimizer="fused", **order)
    two_pass = [
        Contender("article's loop", system, "article", options=_plain(**order)),
        Contender("article's loop, channels-last, fused Adam", system, "article", options=fast),
        Contender("alternating (two passes)", system, "alternating", options=fast, pages=True),
    ]
    kinds = ["one_pass", "ratio"] if one_pass == "ratio" else ["one_pass"]
    return two_pass + [
        Contender(
            {"one_pass": "exact one-pass", "ratio": "one-pass ratio"}[kind],
            system,
            kind,
            must_equal="simultaneous",
            options=fast,
            pages=True,
        )
        for kind in kinds
    ]


def _grl() -> list[Contender]:
    return [
        Contender("article's loop", "grl", "article", options=_plain(fake_first=True)),
        Contender(
            "reversal, fused Adam",
            "grl",
            "reversal",
            options=_plain(optimizer="fused", fake_first=True),
            pages=True,
        ),
    ]


CONTENDERS = [
    *_realness(),
    *_dcgan("dcgan", "one_pass"),
    *_dcgan("dcgan, no norm in D", "ratio"),
    *_grl(),
]


# ------------------------------------------------------------------------- one contender's step


def _loss(contender: Contender, dtype: torch.dtype) -> tuple[gk.GANLoss, tuple[Tensor, Tensor]]:
    anchors = tuple(
        a.to(dtype) for a in (gk.anchors.gaussian(20, m, 1, -2, 2) for m in (1.0, -1.0))
    )
    if contender.system == "realness":
        return gk.RealnessLoss(*anchors, objective=contender.objective), anchors
    return gk.LogisticLoss(saturating=contender.system == "grl"), anchors


def make_players(contender: Contender, dtype: torch.dtype) -> Players:
    """Networks and optimizers of a contender, the same weights for all of a system."""
    system, config = SYSTEMS[contender.system], contender.config
    torch.manual_seed(0)
    generator, discriminator = (prepare(n.to(dtype), config) for n in system.build())
    of_g, of_d = list(generator.parameters()), list(discriminator.parameters())
    if system.shared_optimizer:
        both = adam(of_g + of_d, system.lr, system.betas, config)
        return Players(generator, discriminator, both, both)
    g, d = (adam(part, system.lr, system.betas, config) for part in (of_g, of_d))
    return Players(generator, discriminator, g, d)


def _article_step(
    contender: Contender, players: Players, anchors: tuple[Tensor, Tensor]
) -> Callable[..., object]:
    def run(real: Tensor, noise: article_loops.Noise) -> object:
        if contender.config.channels_last:
            real = real.contiguous(memory_format=torch.channels_last)
        if contender.system == "realness":
            return article_loops.third_article(players, real, noise, anchors, contender.objective)
        if contender.system == "grl":
            return article_loops.first_article(players, real, noise)
        return article_loops.second_article(players, real, noise)

    return run


def _own_step(contender: Contender, players: Players, loss: gk.GANLoss) -> Callable[..., object]:
    step, config = STEPS[contender.step], contender.config

    def run(real: Tensor, noise: article_loops.Noise) -> object:
        return step(players, loss, real, noise, config)

    return run


def _simultaneous_step(contender: Contender, players: Players) -> Callable[..., object]:
    """The plain form of a one-pass step: reference losses, one backward pass for each network."""
    reference, anchors = gk.reference, _loss(contender, torch.float64)[1]

    def losses(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        if contender.system != "realness":
            return reference.logistic_d_loss(real, fake), reference.nonsaturating_g_loss(fake)
        g_loss = reference.realness_g_loss(real, fake, *anchors, objective=contender.objective)
        return reference.realness_d_loss(real, fake, *anchors), g_loss

    def run(real: Tensor, noise: article_loops.Noise) -> object:
        return article_loops.simultaneous(players, real, noise, losses, contender.config.fake_first)

    return run


def make_step(contender: Contender, players: Players, dtype: torch.dtype) -> Callable[..., object]:
    loss, anchors = _loss(contender, dtype)
    if contender.step == "article":
        return _article_step(contender, players, anchors)
    return _own_step(contender, players, loss)


def make_inputs(
    contender: Contender, batch: int, dtype: torch.dtype
) -> tuple[Tensor, article_loops.Noise]:
    system = SYSTEMS[contender.system]
    generator = torch.Generator().manual_seed(1)
    real = torch.rand(batch, *system.image, generator=generator, dtype=dtype)
    return real, lambda n: torch.randn(n, system.noise_dim, generator=generator, dtype=dtype)


def check(contender: Contender) -> float:
    """Largest difference of a weight from the plain loop's, relative to its tensor's largest entry.

    Raises:
        AssertionError: It is above :data:`TOLERANCE`.
    """
    dtype = torch.float64
    ends = []
    for plain in (False, True):
        players = make_players(contender, dtype)
        _still_idle_biases(players)
        run = make_step(contender, players, dtype)
        if plain:
            anchors = _loss(contender, dtype)[1]
            run = (
                _article_step(contender, players, anchors)
                if contender.must_equal == "article"
                else _simultaneous_step(contender, players)
            )
        real, noise = make_inputs(contender, CHECK_BATCH, dtype)
        for _ in range(CHECK_STEPS):
            run(real, noise)
        both = (*players.generator.parameters(), *players.discriminator.parameters())
        ends.append([weight.detach() for weight in both])
    worst = max(
        float((a - b).abs().max() / b.abs().max().clamp_min(1e-3))
        for a, b in zip(*ends, strict=True)
    )
    if not worst <= TOLERANCE:
        raise AssertionError(f"{contender.name}: weights differ by {worst:.1e} of their maximum")
    return worst


def _still_idle_biases(players: Players) -> None:
    """BatchNorm cancels a bias before it: its gradient is rounding noise, which Adam blows up."""
    for network in (players.generator, players.discriminator):
        layers = list(network)  # type: ignore[call-overload]
        for layer, following in pairwise(layers):
            normed = isinstance(following, (nn.BatchNorm1d, nn.BatchNorm2d))
            if normed and isinstance(getattr(layer, "bias", None), Tensor):
                layer.bias.requires_grad_(False)


# ----------------------------------------------------------------------------- worker processes


def _serve(contender: Contender, threads: int, pipe: Connection) -> None:
    """Answer each request with the seconds of one step, until told to end."""
    torch.set_num_threads(threads)
    if contender.pages:
        keep_pages()
    worst = check(contender)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = make_step(contender, make_players(contender, torch.float32), torch.float32)
    real, noise = make_inputs(contender, BATCH, torch.float32)
    for _ in range(WARM_UP):
        run(real, noise)
    gc.disable()
    pipe.send(worst)
    while pipe.recv() == "time":
        start = time.perf_counter()
        for _ in range(STEPS_PER_BLOCK):
            run(real, noise)
        pipe.send((time.perf_counter() - start) / STEPS_PER_BLOCK)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send((peak / 1024, (peak - before) / 1024, _loss_seconds(contender)))


def _loss_seconds(contender: Contender) -> float | None:
    """Seconds that the package's losses of one step take, on logits of the step's shape."""
    if contender.step == "article":
        return None
    loss, _ = _loss(contender, torch.float32)
    shape = (BATCH, 20) if contender.system == "realness" else (BATCH, 1)
    real, fake = torch.randn(shape), torch.randn(shape)
    times = []
    for _ in range(100):
        start = time.perf_counter()
        loss.discriminator_value_and_grad(real, fake)
        loss.generator_value_and_grad(real, fake)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class _Worker:
    """A contender's process and the times it has reported."""

    def __init__(self, contender: Contender, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.contender = contender
        self.pipe, far_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(contender, threads, far_end))
        self.process.start()
        far_end.close()
        self.seconds: list[float] = []
        self.worst = float(self._receive())

    def _receive(self) -> Any:
        try:
            return self.pipe.recv()
        except EOFError:
            raise RuntimeError(f"{self.contender.name} stopped; its error is above") from None

    def measure(self) -> None:
        self.pipe.send("time")
        self.seconds.append(float(self._receive()))

    def finish(self) -> tuple[float, float, float | None]:
        self.pipe.send("end")
        found = self._receive()
        self.process.join()
        return found  # type: ignore[no-any-return]


def measure(system: str, threads: int, rounds: int) -> list[dict[str, Any]]:
    """One row per contender of a system."""
    contenders = [c for c in CONTENDERS if c.system == system]
    workers = [_Worker(c, threads) for c in contenders]
    for turn in range(rounds):
        start = turn % len(workers)
        for worker in workers[start:] + workers[:start]:
            worker.measure()
    return [_row(worker, workers, threads) for worker in workers]


def _row(worker: _Worker, workers: list[_Worker], threads: int) -> dict[str, Any]:
    contender = worker.contender
    peak, grown, loss_seconds = worker.finish()
    ordered = sorted(worker.seconds)
    median = statistics.median(ordered)

    def speed_up(of: _Worker) -> float:
        pairs = zip(of.seconds, worker.seconds, strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)

    two_pass = [w for w in workers if w.contender.name.startswith("alternating (two passes)")]
    return {
        "system": contender.system,
        "contender": contender.name,
        "threads": threads,
        "median_ms": round(1e3 * median, 2),
        "p20_ms": round(1e3 * ordered[round(0.2 * (len(ordered) - 1))], 2),
        "p80_ms": round(1e3 * ordered[round(0.8 * (len(ordered) - 1))], 2),
        "images_per_second": round(BATCH / median, 1),
        "speed_up": round(speed_up(workers[0]), 3),
        "speed_up_over_two_passes": round(speed_up(two_pass[0]), 3) if two_pass else None,
        "peak_mib": round(peak, 1),
        "step_mib": round(grown, 1),
        "loss_share": None if loss_seconds is None else round(loss_seconds / median, 5),
        "same_updates_as": contender.must_equal,
        "largest_difference": worker.worst,
    }


def print_rows(rows: list[dict[str, Any]]) -> None:
    head = rows[0]
    print(f"\n{head['system']}: one step of batch {BATCH}, {head['threads']} thread(s)")
    print(
        f"  {'':58}{'ms':>8}{'images/s':>10}{'speed-up':>10}{'peak MiB':>10}{'loss':>8}  updates of"
    )
    for row in rows:
        share = "" if row["loss_share"] is None else f"{100 * row['loss_share']:.2f} %"
        print(
            f"  {row['contender']:58}{row['median_ms']:8.1f}{row['images_per_second']:10.0f}"
            f"{row['speed_up']:10.2f}{row['peak_mib']:10.0f}{share:>8}  {row['same_updates_as']}"
        )
