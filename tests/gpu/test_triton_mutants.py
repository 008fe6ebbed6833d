"""Each way in which the Triton kernels could be wrong, tried: something must notice every one."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch

pytest.importorskip("triton", minversion="3.4", reason="needs Triton, whose compiler the tests run")

from gankernels.triton import divergence as divergence_launcher
from gankernels.triton import layers, operators
from gankernels.triton import relativistic as relativistic_launcher
from gankernels.triton import scalar as scalar_launcher
from gankernels.triton import softmax_pair as pair_launcher
from gankernels.triton.kernels import (
    common,
    divergence,
    functions,
    mixture,
    pair,
    relativistic,
    scalar,
    softmax_pair,
)
from gankernels.triton.kernels import layers as layer_kernels
from gpu.triton_cases import ROWS, Case, check, draw
from gpu.triton_compiled import many_processors
from tools.ptxsim import triton_driver
from tools.ptxsim.simulator import KernelFault

pytestmark = pytest.mark.emulated


class Mutant(NamedTuple):
    """A change of a kernel's source, and what runs into it."""

    module: ModuleType
    before: str
    after: str
    run: Callable[[], None]
    fault: str = ""  # what the emulator says; where empty, the numbers are wrong


def loss(name: str, case: Case, reduction: str = "mean") -> Callable[[], None]:
    def run() -> None:
        operator = ROWS[name]
        check(operator, draw(operator, case, torch.float32, reduction))

    return run


def twice(run: Callable[[], None]) -> Callable[[], None]:
    """On one ticket."""

    def run_twice() -> None:
        from gankernels.triton import tickets

        mine = tickets._tickets(torch.device("cpu"))
        slot = next(mine.in_turn)
        mine.in_turn = iter([slot, slot])  # type: ignore[assignment]
        try:
            run()
            run()
        finally:
            tickets._tickets.cache_clear()

    return run_twice


def scaled() -> None:
    gradients = torch.ones(5, 6), torch.ones(4, 6)
    both = operators.scale_gradients(*gradients, torch.tensor(3.0), 1, 5, 4)
    torch.testing.assert_close(both, (torch.full((5, 6), 0.6), torch.full((4, 6), 0.75)))


def scaled_in_place() -> None:
    gradients, factors = (
        [torch.randn(5000), torch.randn(700)],
        [torch.tensor(2.0), torch.tensor(3.0)],
    )
    expected = torch.ops.gankernels.scale_terms(gradients, factors, [-1, 35])
    operators.scale_terms_(gradients, factors, [-1, 35])
    torch.testing.assert_close(gradients, expected)


def listed() -> None:
    """A pair with weights that require grad, weights of samples, and enough terms for two launches."""
    x, y, w, z = torch.randn(7, 5), torch.randn(7, 5), torch.rand(7, 5), torch.randn(700, 5)
    per_sample = torch.rand(700, 1).expand(700, 5)
    more = [torch.randn(3 + i) for i in range(18)]
    tensors = [x, y, w, z, per_sample, *more]
    places = [0, 1, 2, 0, 3, -1, 4, 0, *(n for i in range(18) for n in (5 + i, -1, -1, i // 17))]
    terms = (0.0, -1.0, 0.3, 1.7, 0.2) * 20
    wanted = [0, 1, 2, 3, 5, 22]
    arguments = (tensors, "x," * 23, places, terms, 1.3, 1, wanted, True, 1.0)
    losses, gradients = operators.scalar_loss(*arguments)
    exact = torch.ops.gankernels.scalar_loss_value_and_grad(*arguments)
    torch.testing.assert_close(losses, exact[0])
    torch.testing.assert_close(gradients, exact[1])
    factors = [torch.tensor(2.0), torch.tensor(3.0)]
    scaled = operators.scale_terms([x, y], factors, [-1, 35])
    torch.testing.assert_close(scaled, torch.ops.gankernels.scale_terms([x, y], factors, [-1, 35]))


def resampled() -> None:
    statistics, noise = torch.randn(3, 8), torch.randn(3, 4)
    z = operators.resample_forward(statistics, noise, 1)
    mean, log_variance = statistics.chunk(2, 1)
    torch.testing.assert_close(z, mean + noise * (log_variance / 2).exp())


def split() -> None:
    """A row shared by several programs."""
    operator = ROWS["softmax_kl"]
    arguments = draw(operator, Case((1, 25001), empty_bins=True), torch.float32, "mean")
    with many_processors():
        check(operator, arguments)


FEW = Case((33, 20))
MANY = Case((1700, 20), second_batch=1000)  # several programs
TEMPERED_KL = Case((33, 20), options={"temperature": 2.0, "scale": 0.6})
TEMPERED_PAIR = Case((33, 20), options={"p_temperature": 2.0, "q_temperature": 0.5, "scale": -0.6})
D, PAIR, JS = "realness_d_loss", "softmax_kl_logits", "js_divergence"
SHARED_OUT = {"beta": 0.1, "temperature": 2.0, "scale": 0.6}
OUT_OF_BOUNDS = "out-of-bounds"

MUTANTS = {
    "ticket without order": Mutant(
        common, 'sem="acq_rel", scope="gpu"', 'sem="relaxed", scope="gpu"', loss(D, MANY), "race"
    ),
    "ticket within a block": Mutant(
        common, 'sem="acq_rel", scope="gpu"', 'sem="acq_rel", scope="cta"', loss(D, MANY), "race"
    ),
    "nobody is last": Mutant(common, "== programs - 1", "== programs", loss(D, MANY)),
    "everybody is last": Mutant(common, "== programs - 1", ">= 0", loss(D, MANY), "race"),
    "ticket not put back": Mutant(
        common, "            tl.store(ticket, 0)\n", "", twice(loss(D, MANY))
    ),
    "one program forgotten": Mutant(
        common, "mask=i < programs", "mask=i < programs - 1", loss(D, MANY)
    ),
    "a class too many": Mutant(common, "k < classes", "k <= classes", loss(D, Case((33, 19)))),
    "every class of a block": Mutant(
        common,
        "tl.full(k.shape, 1, tl.int1) if layout.EVEN else k < classes",
        "tl.full(k.shape, 1, tl.int1)",
        loss(D, Case((33, 19))),
        OUT_OF_BOUNDS,
    ),
    "rows beyond the last": Mutant(
        divergence, "live = r < rows", "live = r >= 0", loss(D, FEW), OUT_OF_BOUNDS
    ),
    "rows beyond the last, of a pair": Mutant(
        softmax_pair, "live = r < pair.extent.rows", "live = r >= 0", loss(PAIR, FEW), OUT_OF_BOUNDS
    ),
    "empty bins count": Mutant(
        common, "tl.where(b == 0, 0.0, b * t)", "b * t", loss(D, Case((33, 19)))
    ),
    "sign of the anchor": Mutant(divergence, "none - b), none", "none + b), none", loss(D, FEW)),
    "sign of the entropy": Mutant(
        divergence, "return entropy + mass", "return -entropy + mass", loss(D, FEW)
    ),
    "mass taken for one": Mutant(
        divergence,
        "along_rows(mass / s, ",
        "along_rows(1.0 / s, ",
        loss(D, Case((33, 20), mass=1.7)),
    ),
    "target's gradient without one": Mutant(
        divergence, "tl.log(p) + 1.0", "tl.log(p)", loss("softmax_kl", Case((6, 20), target="rows"))
    ),
    "sum not rescaled": Mutant(
        divergence,
        "sums = sums * exp_of(tops - base, inverse)",
        "sums = sums",
        loss(D, Case((2, 9000))),
    ),
    "lanes not brought to one maximum": Mutant(
        divergence,
        "sums * exp_of(tops - along_rows(base_of(top), layout), inverse)",
        "sums",
        loss(D, Case((2, 9000))),
    ),
    "a tile computed twice": Mutant(
        divergence, "tl.minimum(i + step, tiles)", "tl.minimum(i, tiles)", loss(D, MANY)
    ),
    "the tile beyond the last": Mutant(
        divergence,
        "mask = along_rows(r < batch.extent.rows, layout)",
        "mask = along_rows(r >= 0, layout)",
        loss(D, MANY),
    ),
    "parts not brought to one maximum": Mutant(
        divergence, "sums * exp_of(tops - base_of(top), inverse)", "sums", split
    ),
    "last part forgotten": Mutant(
        divergence, "exists = part < parts", "exists = part < parts - 1", split
    ),
    "entropy of every part": Mutant(divergence, "part == 0", "part >= 0", split),
    "a class of the next part": Mutant(
        divergence,
        "tl.minimum(begin + span, batch.extent.classes)",
        "tl.minimum(begin + span + 1, batch.extent.classes)",
        split,
    ),
    "second batch weighted as the first": Mutant(
        divergence, "inverse, weight2, target", "inverse, weight, target", loss(D, MANY)
    ),
    "read before the other lanes wrote": Mutant(
        common,
        "            tl.debug_barrier()  # every lane of",
        "            pass  # every lane of",
        loss(D, Case((3, 1025)), "none"),
        "race",
    ),
    "temperature forgotten": Mutant(
        divergence, "e = exp_of(t, inverse)", "e = exp_of(t, 1.0)", loss("softmax_kl", TEMPERED_KL)
    ),
    "temperatures exchanged": Mutant(
        pair,
        "a.to(a_inverse.dtype) * a_inverse",
        "a.to(a_inverse.dtype) * z_inverse",
        loss(PAIR, TEMPERED_PAIR),
    ),
    "factors of the gradients exchanged": Mutant(
        softmax_pair,
        "masked_product(factors.a_weight * p",
        "masked_product(factors.z_weight * p",
        loss(PAIR, TEMPERED_PAIR),
    ),
    "factor of the rows forgotten": Mutant(
        common,
        "losses *= number(scale, losses.dtype)",
        "pass",
        loss("softmax_kl", TEMPERED_KL, "none"),
    ),
    "mean difference forgotten": Mutant(
        softmax_pair, "(u - t) - along_rows(rows.mean_d, layout)", "(u - t)", loss(PAIR, FEW)
    ),
    "moved bases forgotten": Mutant(
        softmax_pair,
        "= masked_product(a_kept, d_sums + masked_product(a_sums, moved))\n        d",
        "= masked_product(a_kept, d_sums)\n        d",
        loss(PAIR, Case((2, 9000))),
    ),
    "lanes' bases forgotten": Mutant(
        softmax_pair,
        "row_sum(masked_product(a_kept, d_sums + masked_product(a_sums, moved)), layout)",
        "row_sum(masked_product(a_kept, d_sums), layout)",
        loss(PAIR, Case((2, 9000))),
    ),
    "rows beyond the last, of a mixture": Mutant(
        mixture, "live = r < pair.extent.rows", "live = r >= 0", loss(JS, FEW), OUT_OF_BOUNDS
    ),
    "quotient of a mixture turned over": Mutant(
        mixture, "return q / p", "return p / q", loss(JS, FEW)
    ),
    "shares of a mixture exchanged": Mutant(
        mixture,
        "number(a_share, ACC), least",
        "number(z_share, ACC), least",
        loss(JS, Case((33, 20), options=SHARED_OUT)),
    ),
    "mean of a mixture's parts forgotten": Mutant(
        mixture, "(of_p - p * along_rows(divergence, layout))", "of_p", loss(JS, FEW)
    ),
    "a mixture's sums not rescaled": Mutant(
        mixture, "a_sums = a_sums * kept + e", "a_sums = a_sums + e", loss(JS, Case((2, 9000)))
    ),
    "lanes of a mixture not brought to one maximum": Mutant(
        mixture,
        "z_sums *= tl.exp(z_tops - along_rows(base_of(z_top), layout))",
        "z_sums *= 1.0",
        loss(JS, Case((2, 9000))),
    ),
    "sigmoid of the wrong side": Mutant(
        functions,
        "tl.where(u < 0, e * inverse, inverse)",
        "tl.where(u > 0, e * inverse, inverse)",
        loss("logistic_d_loss", FEW),
    ),
    "mean of the wrong batch": Mutant(
        relativistic, "= real_sum / ", "= fake_sum / ", loss("relativistic_d_loss", FEW)
    ),
    "no gradient through the mean": Mutant(
        relativistic, "(derivative + constant)", "derivative", loss("relativistic_d_loss", FEW)
    ),
    "a weight for each element": Mutant(
        scalar, "weight + i // of.per_weight", "weight + i", listed
    ),
    "pairs that move together": Mutant(scalar, "(-slope).to(out", "slope.to(out", listed),
    "a weight's gradient weighted": Mutant(
        scalar,
        "weight_gradient + i, value * factor",
        "weight_gradient + i, value * w * factor",
        listed,
    ),
    "tiles of the first term": Mutant(
        scalar, "pid - firsts[j], firsts[j + 1]", "pid, firsts[j + 1]", listed
    ),
    "an output begun is forgotten": Mutant(
        scalar, "loss += tl.load(losses[0]).to(tl.float64)", "loss += 0.0", listed
    ),
    "programs of a list without order": Mutant(
        scalar, 'sem="acq_rel", scope="gpu"', 'sem="relaxed", scope="gpu"', listed, "race"
    ),
    "factors of the first gradient": Mutant(
        scalar,
        "factors[j], pid - firsts[j], counts[j], rows[j],",
        "factors[0], pid - firsts[j], counts[j], rows[j],",
        listed,
    ),
    "in place, all but the first tile forgotten": Mutant(
        scalar, "tiles = tl.cdiv(counts[j], BLOCK)", "tiles = 1", scaled_in_place
    ),
    "in place, two taken for one": Mutant(
        scalar, "== 1, 0, tiles)", "== 2, 0, tiles)", scaled_in_place
    ),
    "average forgotten": Mutant(layer_kernels, "* number(average, tl.float64)", "* 1.0", scaled),
    "log-variance not halved": Mutant(
        layer_kernels, "e * tl.exp(log_variance * 0.5)", "e * tl.exp(log_variance)", resampled
    ),
}

# Who uses a kernel, and by which name.
USERS = {
    divergence: [(divergence_launcher, "divergence_kernel")],
    softmax_pair: [(pair_launcher, "softmax_pair_kernel")],
    mixture: [(pair_launcher, "mixture_kernel")],
    scalar: [
        (scalar_launcher, "term_sums_kernel"),
        (scalar_launcher, "term_rows_kernel"),
        (scalar_launcher, "scale_terms_kernel"),
    ],
    relativistic: [(relativistic_launcher, "relativistic_kernel")],
    layer_kernels: [(layers, "scale_kernel"), (layers, "resample_kernel")],
}


SHARED = {common: divergence, functions: scalar, pair: softmax_pair}


def load(name: str, source: str, folder: Path) -> ModuleType:
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def source_of(module: ModuleType) -> str:
    assert module.__file__ is not None
    return Path(module.__file__).read_text()


@pytest.fixture(autouse=True)
def _emulated() -> None:
    triton_driver.install(arch=90)


@pytest.fixture
def modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("mutant_"):
            del sys.modules[name]


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("name", MUTANTS)
def test_mutants(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[name]
    source = source_of(mutant.module)
    assert source.count(mutant.before) >= 1, f"{mutant.before!r} is not there to be changed"
    label = "mutant_" + "".join(c if c.isalnum() else "_" for c in name)
    changed = load(label, source.replace(mutant.before, mutant.after), tmp_path)
    used = mutant.module
    if mutant.module in SHARED:
        # What kernels share is changed under one of them.
        used = SHARED[mutant.module]
        text = source_of(used).replace(mutant.module.__name__, label)
        changed = load(f"{label}_user", text, tmp_path)
    for user, kernel in USERS[used]:
        monkeypatch.setattr(user, kernel, getattr(changed, kernel))
    if mutant.fault:
        with pytest.raises(KernelFault, match=mutant.fault):
            mutant.run()
    else:
        with pytest.raises((AssertionError, KernelFault)):
            mutant.run()


@pytest.mark.parametrize("run", {m.run for m in MUTANTS.values()}, ids=lambda _: "unchanged")
def test_what_runs_into_them_passes_without_them(run: Callable[[], None]) -> None:
    run()
