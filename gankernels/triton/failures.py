"""Where a kernel cannot be compiled: the CPU's kernels finish that call, and who serves GPUs hears of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

KERNEL = "gankernels_kernel"


def name_kernel(error: BaseException, kernel: Any) -> None:
    """Leaves on an error which kernel's launch raised it; no other error is about a compiler."""
    setattr(error, KERNEL, getattr(kernel, "__name__", str(kernel)))


def reason_of(error: BaseException) -> str | None:
    """Which kernel was not launched, with which versions and why; None for an error that is not about one."""
    kernel = getattr(error, KERNEL, None)
    # Memory that was short may be there for the next call.
    if kernel is None or isinstance(error, torch.OutOfMemoryError):
        return None
    try:
        import triton

        version = f"Triton {triton.__version__}"
    except Exception:  # what is broken is Triton itself
        version = "Triton"
    gpu = f"CUDA {torch.version.cuda}" if torch.version.hip is None else f"ROCm {torch.version.hip}"
    said = next(iter(str(error).strip().splitlines()), "no message")
    return (
        f"{version} (torch {torch.__version__}, {gpu}) could not compile or launch {kernel}: "
        f"{type(error).__name__}: {said}"
    )


def guarded(
    name: str, launcher: Callable[..., Any], on_failure: Callable[[str], None]
) -> Callable[..., Any]:
    """An operator that the CPU's kernel answers where a launch fails, telling ``on_failure`` why.

    The operator alone can do that: a backward pass asks it for what no function of this package is called for.
    """

    def operator(*arguments: Any) -> Any:
        try:
            return launcher(*arguments)
        except Exception as error:  # compilers fail in every way there is
            reason = reason_of(error)
            if reason is None:
                raise
            outputs = _on_cpu(name, arguments)  # raises in its turn where the GPU is what failed
            on_failure(reason)
            return outputs

    return operator


def _moved(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list | tuple):
        return type(value)(_moved(item, device) for item in value)
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def written(operator: Any, arguments: tuple[Any, ...]) -> Iterator[Tensor]:
    """The tensors of a call that the operator's schema says it writes."""
    for argument, given in zip(operator._schema.arguments, arguments, strict=False):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from _tensors(given)


def _on_cpu(name: str, arguments: tuple[Any, ...]) -> Any:
    operator = getattr(torch.ops.gankernels, name).default
    moved = _moved(arguments, "cpu")
    outputs = operator(*moved)
    for tensor, own in zip(written(operator, arguments), written(operator, moved), strict=True):
        tensor.copy_(own)
    return _moved(outputs, next(_tensors(arguments)).device)
