"""Two logits of one shape, as the divergences between their softmaxes take them."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Pair(NamedTuple):
    extent: Any
    a: Any  # logits of the first distribution
    z: Any
    a_gradient: Any
    z_gradient: Any


@triton.jit
def load_pair(pair, a_row, z_row, k, mask, a_inverse, z_inverse):
    """A tile of both, times the inverses of their temperatures; rows begin at a_row and z_row."""
    a = tl.load(pair.a.pointer + (a_row + k * pair.a.cls), mask=mask, other=-float("inf"))
    z = tl.load(pair.z.pointer + (z_row + k * pair.z.cls), mask=mask, other=-float("inf"))
    return a.to(a_inverse.dtype) * a_inverse, z.to(z_inverse.dtype) * z_inverse
