"""Which backends the contract runs on: conftest.py adds them; here is what cannot be switched in a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import backends
import pytest
import torch

from contract.common import with_leaves
from gankernels import build_info
from gankernels.testing import OPERATORS, differentiate

CONTRACT = Path(__file__).parent
CAPABILITIES = ("avx512", "avx2", "portable")


@pytest.mark.backends("cpu")
@pytest.mark.parametrize("name", backends.BACKENDS)
def test_the_contract_runs_on_every_backend(name: str) -> None:
    if backends.BACKENDS[name].missing:
        pytest.skip(f"not on {name}: {backends.BACKENDS[name].missing}")
    assert name in list(backends.available()) or build_info()["reason"]


@pytest.mark.compiled
@pytest.mark.backends("triton", "cuda")
def test_the_table_calls_every_kernel_of_the_backend(backend: str) -> None:
    """Nothing passes for want of a redirected operator."""
    gpu = backends.BACKENDS[backend]
    assert isinstance(gpu, backends.Gpu)
    assert set(backends.triton.implemented()) <= set(gpu.kernels())
    gpu.calls.clear()
    for operator in filter(backends.serves, OPERATORS):
        before = gpu.calls.total()
        for reduction in operator.reductions or (None,):
            case = next(operator.few_cases())
            arguments = operator.draw(case, torch.float32, reduction=reduction)
            # A gradient of one is not multiplied by.
            factor = None if reduction in (None, "none") else torch.tensor(2.0)
            differentiate(operator.functional, arguments, operator.inputs(arguments), factor)
            if factor is not None:  # of a graph that is kept, what is saved stays as it is
                leaves = with_leaves(arguments, operator.inputs(arguments))
                loss = operator.functional(**leaves)
                loss.backward(factor, retain_graph=True)
        assert gpu.calls.total() > before, operator.name
    # Autograd scales two gradients in one launch on GPUs alone: see test_derivatives.py.
    assert set(gpu.calls) | {"scale_gradients"} == set(gpu.kernels())


@pytest.mark.compiled
def test_a_backend_gives_the_operators_back(backend: str) -> None:
    if not hasattr(torch.library, "get_kernel"):
        pytest.skip("this torch cannot tell which kernel serves an operator")
    name = "gankernels::softmax_kl_value_and_grad"
    backends.serve("cpu")
    own = repr(torch.library.get_kernel(name, "CPU"))
    assert "csrc/cpu" in own
    backends.serve(backend)
    changed = repr(torch.library.get_kernel(name, "CPU")) != own
    assert changed == (backend in ("triton", "cuda"))


@pytest.mark.processes
@pytest.mark.backends("cpu")
@pytest.mark.parametrize("name", backends.BACKENDS)
def test_the_contract_can_be_asked_of_one_backend_alone(name: str) -> None:
    """A test of others alone is skipped with a reason there: collected, as where they are missing."""
    arguments = ["-q", "-p", "no:cacheprovider", "-rs", __file__]
    arguments += ["-k", "every_kernel_of_the_backend or runs_on_every_backend"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        capture_output=True,
        text=True,
        cwd=CONTRACT.parent.parent,
        env={**os.environ, "GANKERNELS_TEST_BACKENDS": name},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    others = "of cpu" if name != "cpu" else "of triton, cuda"
    assert f"{others}, and this run has {name}" in done.stdout


# --- instruction sets ----------------------------------------------------------------------------
# Chosen where the kernels are first called: each is a fresh interpreter that runs the contract's numbers.

NUMERIC = ["test_values.py", "test_extremes.py"]


@pytest.mark.compiled
@pytest.mark.processes
@pytest.mark.backends("cpu")
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_an_instruction_set_is_chosen_by_its_name(capability: str) -> None:
    if CAPABILITIES.index(capability) < CAPABILITIES.index(str(build_info()["cpu_capability"])):
        pytest.skip(f"this CPU has no {capability}")
    probe = "import gankernels; print(gankernels.build_info()['cpu_capability'])"
    chosen = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "GANKERNELS_CPU_CAPABILITY": capability},
    )
    assert chosen.stdout.strip() == capability


@pytest.mark.compiled
@pytest.mark.processes
@pytest.mark.backends("cpu")
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_instruction_set(capability: str) -> None:
    if CAPABILITIES.index(capability) <= CAPABILITIES.index(str(build_info()["cpu_capability"])):
        pytest.skip(f"the tests around this one run on {capability}, or the CPU has none")
    arguments = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, *(str(CONTRACT / name) for name in NUMERIC)],
        capture_output=True,
        text=True,
        cwd=CONTRACT.parent.parent,
        env={
            **os.environ,
            "GANKERNELS_CPU_CAPABILITY": capability,
            "GANKERNELS_TEST_BACKENDS": "cpu",
        },
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert int(done.stdout.rsplit(" passed", 1)[0].split()[-1]) > 300
