"""A kernel that cannot be compiled ends no training run: that call is answered, and later ones go elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest
import torch

from gankernels import _backend
from gankernels.triton import failures
from gankernels.triton.failures import guarded, name_kernel

pytest.importorskip("triton", minversion="3.4")
pytestmark = [pytest.mark.compiled, pytest.mark.backends("cpu")]

NAME = "realness_d_loss_value_and_grad"
PAGE = "PassManager::run failed\nmore than anyone reads"


def arguments() -> tuple[Any, ...]:
    logits, anchor = torch.randn(2, 8, 5), torch.rand(2, 5)
    return (*logits, *anchor, 1, _backend.REDUCTIONS["mean"], True, True, True, 1.0)


class Kernel:
    """What launching.launch takes for a kernel, whose compiler raises."""

    __name__ = "divergence_kernel"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def run(*_: Any, **__: Any) -> None:
            raise self.error

        return run


def failing(error: Exception) -> Any:
    from gankernels.triton.launching import launch

    return lambda *_: launch(Kernel(error), 1, num_warps=4)


def test_the_call_is_answered_by_the_cpus_kernel() -> None:
    told: list[str] = []
    given = arguments()
    outputs = guarded(NAME, failing(RuntimeError(PAGE)), told.append)(*given)
    expected = getattr(torch.ops.gankernels, NAME).default(*given)
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))
    import triton

    (reason,) = told
    for text in ("divergence_kernel", f"Triton {triton.__version__}", torch.__version__):
        assert text in reason
    assert reason.endswith("RuntimeError: PassManager::run failed")


def test_lists_of_tensors_are_answered_too() -> None:
    gradients = [torch.ones(3), torch.ones(2)]
    given = (gradients, [torch.tensor(2.0), torch.tensor(3.0)], [-1, -1])
    outputs = guarded("scale_terms", failing(RuntimeError(PAGE)), lambda _: None)(*given)
    assert [t.tolist() for t in outputs] == [[2.0] * 3, [3.0] * 2]
    moved = failures._moved((1, *given), "meta")  # as from a GPU
    assert {t.device.type for tensors in moved[1:3] for t in tensors} == {"meta"}
    assert moved[0] == 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), ValueError("bad call")])
def test_other_errors_pass(error: Exception) -> None:
    def launcher(*_: Any) -> None:
        if isinstance(error, torch.OutOfMemoryError):
            name_kernel(error, Kernel(error))
        raise error

    with pytest.raises(type(error), match=str(error)):
        guarded(NAME, launcher, pytest.fail)(*arguments())


def test_the_reference_serves_gpus_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backend, "GPU_BACKEND", "Triton")
    monkeypatch.setattr(_backend, "GPU_REASON", "for a test")
    monkeypatch.setattr(_backend, "DEVICE_TYPES", frozenset({"cpu", "meta"}))
    serve = _backend.EXTENSION.serve_device_type
    # The device that stands for a GPU here.
    monkeypatch.setattr(
        _backend, "EXTENSION", type("E", (), {"serve_device_type": lambda _, on: serve("meta", on)})
    )
    serve("meta", True)
    from gankernels import _C

    logits = torch.zeros(2, device="meta")
    assert _C.kernels_serve(logits)
    with pytest.warns(UserWarning, match="reference on GPUs: it broke"):
        _backend._leave_gpus_to_reference("it broke")
    _backend._leave_gpus_to_reference("again")  # in silence: a warning is an error here
    assert not _C.kernels_serve(logits)
    assert (_backend.GPU_BACKEND, _backend.GPU_REASON) == ("reference", "it broke")
    assert sorted(_backend.DEVICE_TYPES) == ["cpu"]


IN_A_GPU_BUILD = """
import json, sys, warnings, torch
torch.version.cuda = "13.0"
import gankernels as gk
from gankernels import _backend
logits, anchor = torch.zeros(2, 8, 5), torch.full((2, 5), 0.2)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    before = gk.build_info()["backends"]["cuda"]
    call = torch.ops.gankernels.realness_d_loss_value_and_grad.default
    cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    for _ in range(2):
        loss, *_ = call.redispatch(cuda, *logits, *anchor, 1, 1, True, True, True, 1.0)
print(json.dumps([before, loss.item(), [str(w.message) for w in caught], gk.build_info()]))
"""


@pytest.mark.processes
@pytest.mark.parametrize("asked_for", ["auto", "triton"])
def test_without_a_driver_or_compiler(asked_for: str) -> None:
    """The CUDA kernel of a machine without a GPU: nothing that Triton needs is there."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_GPU_BUILD],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GANKERNELS_BACKEND": asked_for},
    )
    if asked_for == "triton":  # who asked for it is told
        assert done.returncode != 0
        return
    assert done.returncode == 0, done.stderr
    before, loss, told, info = json.loads(done.stdout.splitlines()[-1])
    assert before == "Triton"
    assert loss == pytest.approx(0, abs=1e-6)
    (warning,) = (text for text in told if "gankernels" in text)
    assert re.search(r"Triton .* could not compile or launch divergence_kernel: ", warning)
    assert info["backends"]["cuda"] == "reference"
    assert info["reasons"]["cuda"] in warning
