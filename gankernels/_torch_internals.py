"""What torch does not promise to keep, in one place: its private functions, and what changed between releases.

====================================  =================================================================
used here                             in other releases, or instead
====================================  =================================================================
``forward_ad._current_level``         the same from 2.6 on; no public function says whether a level is open
``_are_functorch_transforms_active``  the same from 2.6 on; the only such question that Dynamo can trace
``peek_interpreter_stack``            the same from 2.6 on; the stack of transforms has no public name
``is_in_torch_dispatch_mode``         the same from 2.6 on; modes have no public question
``_dispatch_get_registrations_...``   the same from 2.6 on; ``torch.ops`` lists only what was asked for
``Library.impl(allow_override=)``     missing from older ones, which replace a kernel without being told
====================================  =================================================================

Their counterparts in C++ are in ``csrc/compat.h``. Which releases were tried: ``docs/results/versions.json``.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

__all__ = [
    "forward_mode_active",
    "is_in_torch_dispatch_mode",
    "names_of_cpu_kernels",
    "register_kernel",
    "traced_transforms_active",
    "transforms_active",
]


def forward_mode_active() -> bool:
    """Whether a level of forward-mode AD is open, whose dual numbers C++ functions do not see."""
    return forward_ad._current_level >= 0


def traced_transforms_active() -> bool:
    """Whether a ``torch.func`` transform is at work, asked while ``torch.compile`` traces."""
    return torch._C._are_functorch_transforms_active()


def transforms_active() -> bool:
    """Whether a ``torch.func`` transform is at work."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def names_of_cpu_kernels(namespace: str) -> tuple[str, ...]:
    """The operators of a namespace that have a kernel for the CPU, without the namespace."""
    found = torch._C._dispatch_get_registrations_for_dispatch_key("CPU")
    prefix = f"{namespace}::"
    return tuple(name.removeprefix(prefix) for name in found if name.startswith(prefix))


_OVERRIDE = (
    {"allow_override": True}
    if "allow_override" in inspect.signature(torch.library.Library.impl).parameters
    else {}
)


def register_kernel(
    library: torch.library.Library, name: str, kernel: Callable[..., Any], key: str
) -> None:
    """Makes ``kernel`` what serves an operator under a dispatch key, in place of another one, if there is one."""
    with warnings.catch_warnings():
        # Taking the place of C++ kernels is what was asked for; some releases warn of it all the same.
        warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
        library.impl(name, kernel, key, **_OVERRIDE)  # type: ignore[no-untyped-call]
