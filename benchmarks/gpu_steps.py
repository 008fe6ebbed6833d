"""Times whole training steps on a GPU; `--save` keeps them in benchmarks/results/gpu-steps.json and .csv.

python -m benchmarks.gpu_steps                  every system, fp32 and bf16
python -m benchmarks.gpu_steps --quick          without the compiled contenders
python -m benchmarks.gpu_steps --device cpu     one small system without graphs: does it run?

Milliseconds of wall time per step, the device waited for at both ends of a block of steps; all contenders of a
system in turn, round after round. fp32 is PyTorch's own choice: TF32 where the header says so. bf16 is autocast
of the networks in every contender. Before the clock starts, a few float64 steps of ours, graphed, are held
against the article's loop.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import gankernels as gk
from benchmarks import article_loops, results, steps
from benchmarks.timing import Measurement, interleaved, paired_ratio
from gankernels.training import Players, StepConfig
from gankernels.training.graphs import WARM_UP, GraphedStep
from gankernels.training.networks import dcgan_article, grl_mlp, realness_article
from gankernels.training.players import adam, prepare
from gankernels.training.steps import STEPS

PRECISIONS = ("fp32", "bf16")
CHECKED = WARM_UP + 3  # float64 steps; the last ones are replays
ROUNDS = 15
COMPILING = 40.0  # seconds that a pair of compiled contenders may take
Run = Callable[[], object]


@dataclass(frozen=True)
class System:
    """Networks with their optimizers, the article's loop, and our step with the same updates."""

    networks: steps.System
    batch: int
    step: str
    options: dict[str, Any]
    loss: str = "logistic"


SYSTEMS = {
    "grl 28": System(steps.SYSTEMS["grl"], 128, "reversal", {"fake_first": True}),
    "dcgan 32": System(
        steps.System(lambda: dcgan_article(32, 3), (3, 32, 32)),
        128,
        "alternating",
        {"order": "g_first", "fake_first": True},
    ),
    "dcgan 64": System(
        steps.System(lambda: dcgan_article(64, 3), (3, 64, 64)),
        64,
        "alternating",
        {"order": "g_first", "fake_first": True},
    ),
    "realness 32": System(
        replace(steps.SYSTEMS["realness"], build=lambda: realness_article(32, 3, 20, 100)),
        128,
        "alternating",
        {},
        "realness",
    ),
}
SMALL = System(
    steps.System(lambda: grl_mlp(8, 1, dropout=0.0), (1, 8, 8), shared_optimizer=True),
    8,
    "reversal",
    {"fake_first": True},
)


@dataclass(frozen=True)
class Contender:
    """One way to take a step.

    Args:
        name: As in the table; the first one is what the others are compared with.
        step: ``"article"``, or a key of the package's steps.
        config: Its options; of an article's loop, memory format and form of Adam.
        mode: Of ``torch.compile`` for both networks, or None.
    """

    name: str
    step: str
    config: StepConfig
    mode: str | None = None


def contenders(system: System, amp: str | None) -> list[Contender]:
    """The article's loop as written and with all that PyTorch offers, and ours."""
    of_step = {**system.options, "grad_norms": False}
    usual = StepConfig(channels_last=False, optimizer="foreach", **of_step)
    fast = StepConfig(**of_step)
    ours, name = replace(fast, amp=amp), system.step
    return [
        Contender("article's loop", "article", usual),
        Contender("article's loop, channels-last, fused Adam", "article", fast),
        Contender("the same, torch.compile", "article", fast, "default"),
        Contender("the same, mode=reduce-overhead", "article", fast, "reduce-overhead"),
        Contender(f"{name}, channels-last, fused Adam", name, ours),
        Contender(f"{name}, the same as a CUDA graph", name, replace(ours, cuda_graph=True)),
    ]


class Autocast(nn.Module):
    """A network in mixed precision, with samples and logits in float32, as ours has them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            made = self.network(x)
        return made.float()  # type: ignore[no-any-return]


def make_players(
    system: System, contender: Contender, device: str, dtype: torch.dtype, amp: str | None
) -> Players:
    """Networks and optimizers, the same weights for all contenders of a system."""
    torch.manual_seed(0)
    config, of = contender.config, system.networks
    networks = [prepare(n.to(device, dtype), config) for n in of.build()]
    if contender.mode is not None:
        for network in networks:
            network.compile(mode=contender.mode)
    of_g, of_d = (list(n.parameters()) for n in networks)
    if of.shared_optimizer:
        g = d = adam(of_g + of_d, of.lr, of.betas, config)
    else:
        g, d = (adam(p, of.lr, of.betas, config) for p in (of_g, of_d))
    if amp is not None and contender.step == "article":
        networks = [Autocast(n) for n in networks]
    return Players(networks[0], networks[1], g, d)


def make_run(
    system: System, contender: Contender, players: Players, batch: int, dtype: torch.dtype
) -> Run:
    """``run()`` does one step on the next of a few batches."""
    of, device = system.networks, next(players.generator.parameters()).device
    draws = torch.Generator(device).manual_seed(1)

    def noise(count: int) -> Tensor:
        return torch.randn(count, of.noise_dim, device=device, dtype=dtype, generator=draws)

    batches = [
        torch.rand(batch, *of.image, device=device, dtype=dtype, generator=draws) for _ in range(4)
    ]
    done = 0
    step = _step(system, contender, players, noise)
    if contender.config.cuda_graph:
        step = GraphedStep(step, players, contender.config, [draws])

    def run() -> object:
        nonlocal done
        done += 1
        if contender.mode == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        return step(batches[done % len(batches)], done)

    return run


def _step(
    system: System, contender: Contender, players: Players, noise: article_loops.Noise
) -> Callable[[Tensor, int], Any]:
    config = contender.config
    weight = next(players.generator.parameters())
    anchors = tuple(gk.anchors.gaussian(20, m, 1, -2, 2).to(weight) for m in (1.0, -1.0))
    loss: Any = gk.LogisticLoss(saturating=system.step == "reversal")
    if system.loss == "realness":
        loss = gk.RealnessLoss(*anchors, objective=2).to(weight.device)

    def ours(real: Tensor, iteration: int) -> Any:
        return STEPS[contender.step](players, loss, real, noise, config, iteration)

    def article(real: Tensor, _iteration: int) -> Any:
        if config.channels_last:
            real = real.contiguous(memory_format=torch.channels_last)
        if system.loss == "realness":
            return article_loops.third_article(players, real, noise, anchors, 2)  # type: ignore[arg-type]
        if system.step == "reversal":
            return article_loops.first_article(players, real, noise)
        return article_loops.second_article(players, real, noise)

    return article if contender.step == "article" else ours


def check(system: System, device: str) -> float:
    """Largest difference of a weight from the article's loop, relative to its tensor's largest entry.

    Raises:
        AssertionError: It is above the tolerance of :mod:`benchmarks.steps`.
    """
    ends = []
    # A graph's Adam reads its rate as float32, and the gain of 1 / epsilon makes much of a last digit.
    rate = torch.tensor(system.networks.lr, dtype=torch.float32).item()
    system = replace(system, networks=replace(system.networks, lr=rate))
    plain, *_, ours = contenders(system, None)
    if device == "cpu":
        ours = replace(ours, config=replace(ours.config, cuda_graph=False))
    for contender in (plain, ours):
        players = make_players(system, contender, device, torch.float64, None)
        steps._still_idle_biases(players)
        run = make_run(system, contender, players, steps.CHECK_BATCH, torch.float64)
        for _ in range(CHECKED):
            run()
        both = (*players.generator.parameters(), *players.discriminator.parameters())
        ends.append([weight.detach() for weight in both])
    worst = max(
        float((a - b).abs().max() / b.abs().max().clamp_min(1e-3))
        for a, b in zip(*ends, strict=True)
    )
    if not worst <= steps.TOLERANCE:
        raise AssertionError(f"{ours.name}: weights differ by {worst:.1e} of their maximum")
    return worst


# ----------------------------------------------------------------------------------------- timing


def ready(system: System, contender: Contender, device: str, amp: str | None) -> Run | str:
    """A contender whose compilation and capture are behind it, or why there is none."""
    try:
        players = make_players(system, contender, device, torch.float32, amp)
        run = make_run(system, contender, players, system.batch, torch.float32)
        for _ in range(WARM_UP + 3):
            run()
    except Exception as error:  # a rival that cannot run here is a row of the table
        return (str(error) or type(error).__name__).splitlines()[0]
    return run


def measure(
    name: str, system: System, device: str, precision: str, compiled: bool, rounds: int
) -> list[dict[str, Any]]:
    """One row per contender of a system in one precision."""
    amp = None if precision == "fp32" else precision
    torch._dynamo.reset()  # its cache of compiled code is bounded
    runs: dict[str, Run] = {}
    absent: dict[str, str] = {}
    for contender in contenders(system, amp):
        if contender.mode is not None and not compiled:
            absent[contender.name] = "left out"
        elif contender.config.cuda_graph and device == "cpu":
            absent[contender.name] = "no CUDA device"
        else:
            run = ready(system, contender, device, amp)
            (absent if isinstance(run, str) else runs)[contender.name] = run  # type: ignore[index]
    times = interleaved(runs, rounds=rounds, seconds_per_block=0.02)
    base = next(iter(times.values()))
    head = {"system": name, "batch": system.batch, "precision": precision}
    rows = [{**head, **_row(who, measured, base, system)} for who, measured in times.items()]
    return rows + [{**head, "contender": who, "absent": why} for who, why in absent.items()]


def _row(name: str, measured: Measurement, base: Measurement, system: System) -> dict[str, Any]:
    return {
        "contender": name,
        "median_ms": round(measured.median / 1e3, 3),
        "p20_ms": round(measured.percentile(20) / 1e3, 3),
        "p80_ms": round(measured.percentile(80) / 1e3, 3),
        "images_per_second": round(system.batch / measured.median * 1e6),
        "speed_up": round(paired_ratio(base, measured), 3),
        "absent": None,
    }


def print_rows(rows: list[dict[str, Any]]) -> None:
    head = rows[0]
    print(f"\n{head['system']}, {head['precision']}: one step of batch {head['batch']}")
    print(f"  {'':44}{'ms':>9}{'p20':>9}{'p80':>9}{'images/s':>12}{'speed-up':>10}")
    for row in rows:
        if row["absent"]:
            print(f"  {row['contender']:44}{row['absent']}")
        else:
            print(
                f"  {row['contender']:44}{row['median_ms']:9.3f}{row['p20_ms']:9.3f}"
                f"{row['p80_ms']:9.3f}{row['images_per_second']:12.0f}{row['speed_up']:10.2f}"
            )


def differences(systems: dict[str, System], device: str) -> tuple[dict[str, float], list[str]]:
    """What :func:`check` finds for each system, and what is wrong with those that are not timed."""
    found: dict[str, float] = {}
    wrong: list[str] = []
    for name, system in systems.items():
        try:
            found[name] = check(system, device)
        except AssertionError as error:
            wrong.append(f"{name}: {error}")
    return found, wrong


def cases(names: list[str]) -> list[tuple[str, str]]:
    """Systems and precisions: each system once before any twice, since the time may run out."""
    turns = range(len(PRECISIONS))
    return [
        (name, PRECISIONS[(place + turn) % len(PRECISIONS)])
        for turn in turns
        for place, name in enumerate(names)
    ]


def environment(device: str) -> dict[str, Any]:
    on_gpu = device != "cpu"
    return {
        **results.environment(1),
        "command": " ".join(["python -m benchmarks.gpu_steps", *sys.argv[1:]]),
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "cuda": torch.version.cuda or torch.version.hip,
        "backend": gk.build_info()["backends"]["cuda" if on_gpu else "cpu"],
        "tf32_in_convolutions": torch.backends.cudnn.allow_tf32,
        "tf32_in_products": torch.backends.cuda.matmul.allow_tf32,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--save", action="store_true", help="keep the results")
    parser.add_argument("--quick", action="store_true", help="leave out torch.compile")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--seconds",
        type=float,
        default=90.0,
        help="leave out compiled contenders that could take longer in all (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    on_gpu = options.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise SystemExit(f"no CUDA device: torch {torch.__version__} sees none")
    header = environment(options.device)
    print("  ".join(f"{key}={value}" for key, value in header.items()))
    began = time.perf_counter()
    found, wrong = differences(SYSTEMS if on_gpu else {"small": SMALL}, options.device)
    rows: list[dict[str, Any]] = []
    for name, precision in cases(list(found)) if on_gpu else [("small", "fp32")]:
        left = options.seconds - (time.perf_counter() - began)
        compiled = on_gpu and not options.quick and left > COMPILING
        system, rounds = SYSTEMS.get(name, SMALL), ROUNDS if on_gpu else 1
        measured = measure(name, system, options.device, precision, compiled, rounds)
        rows += [{**row, "largest_difference": found[name]} for row in measured]
        print_rows(measured)
    if options.save:
        results.save("gpu-steps", header, rows)
    if wrong:
        raise SystemExit("not timed: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
