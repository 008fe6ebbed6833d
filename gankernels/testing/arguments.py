"""The arguments that are drawn for a case of an operator, all but ``reduction``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from gankernels.testing.cases import Arguments, Case, Draw


def softmax_kl(case: Case, draw: Draw) -> Arguments:
    logits = draw.normal(*case.shape)
    target = draw.distribution(case, case.shape, case.mass)
    return {"logits": logits, "target": target, "dim": case.dim}


def softmax_kl_logits(case: Case, draw: Draw) -> Arguments:
    p_logits, q_logits = draw.normal(*case.shape), draw.normal(*case.shape)
    return {"p_logits": p_logits, "q_logits": q_logits, "dim": case.dim}


def realness_d(case: Case, draw: Draw) -> Arguments:
    fake_shape = case.shape
    if case.second_batch is not None:
        fake_shape = (case.second_batch, *case.shape[1:])
    return {
        "real_logits": draw.normal(*case.shape),
        "fake_logits": draw.normal(*fake_shape),
        "real_anchor": draw.distribution(case, case.shape, case.mass),
        "fake_anchor": draw.distribution(case, fake_shape, 1 / case.mass),
        "dim": case.dim,
    }


def realness_g(case: Case, draw: Draw) -> Arguments:
    arguments = realness_d(case, draw)
    # What an objective does not use may be missing.
    if case.options["objective"] != 2:
        arguments["real_logits"] = None
    if case.options["objective"] != 3:
        arguments["real_anchor"] = None
    return arguments


def of_logits(names: Sequence[str]) -> Callable[[Case, Draw], Arguments]:
    """Logits by these names, the second batch of another size where the case has one."""

    def drawn(case: Case, draw: Draw) -> Arguments:
        other = case.shape if case.second_batch is None else (case.second_batch, *case.shape[1:])
        shapes = (case.shape, other)
        return {name: draw.normal(*shape) for name, shape in zip(names, shapes, strict=False)}

    return drawn


def gradient_scale(case: Case, draw: Draw) -> Arguments:
    return {"x": draw.normal(*case.shape), "scale": draw.normal(case.shape[0], scale=1.0)}


def resample(case: Case, draw: Draw) -> Arguments:
    dim = case.dim % len(case.shape)
    doubled = [2 * size if d == dim else size for d, size in enumerate(case.shape)]
    statistics = draw.normal(*doubled, scale=1.0)
    return {"mu_logvar": statistics, "dim": case.dim, "noise": draw.normal(*case.shape, scale=1.0)}


def resampled_realness_d(case: Case, draw: Draw) -> Arguments:
    shapes = {"real": case.shape, "fake": case.shape}
    if case.second_batch is not None:
        shapes["fake"] = (case.second_batch, *case.shape[1:])
    arguments: Arguments = {"dim": case.dim}
    for batch, shape in shapes.items():
        drawn = resample(replace(case, shape=shape), draw)
        mass = case.mass if batch == "real" else 1 / case.mass
        arguments[f"{batch}_statistics"] = drawn["mu_logvar"]
        arguments[f"{batch}_anchor"] = draw.distribution(case, shape, mass)
        arguments[f"{batch}_noise"] = drawn["noise"]
    return arguments


def resampled_realness_g(case: Case, draw: Draw) -> Arguments:
    arguments = resampled_realness_d(case, draw)
    if case.options["objective"] != 2:
        arguments["real_statistics"] = arguments["real_noise"] = None
    if case.options["objective"] != 3:
        arguments["real_anchor"] = None
    return arguments
