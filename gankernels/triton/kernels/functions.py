"""f of a term and its derivative."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def softplus_and_sigmoid(u):
    """max(u, 0) + log(1 + e) and 1 / (1 + e), or e / (1 + e) where u < 0; e = exp(-|u|).

    log(1 + e) = 2 atanh(x), x = e / (2 + e) at most 1/3. One reciprocal serves both quotients.
    """
    e = tl.exp(-tl.abs(u))
    reciprocal = 1.0 / ((e + 1.0) * (e + 2.0))
    x = e * (e + 1.0) * reciprocal
    inverse = (e + 2.0) * reciprocal
    square = x * x
    # 8 terms leave 3^-17 / 17, below the rounding of float32; 17 terms do for float64.
    terms: tl.constexpr = 17 if e.dtype == tl.float64 else 8
    total = tl.zeros(e.shape, e.dtype)
    for i in tl.static_range(terms):
        total = tl.fma(total, square, tl.zeros_like(e) + 1.0 / (2 * (terms - 1 - i) + 1))
    return tl.where(u > 0, u, 0.0) + 2.0 * x * total, tl.where(u < 0, e * inverse, inverse)


@triton.jit
def value_and_slope(u, FUNCTION: tl.constexpr):
    """f(u) and f'(u); FUNCTION is a place in FUNCTIONS of gankernels._scalar."""
    if FUNCTION == 0:
        return softplus_and_sigmoid(u)
    elif FUNCTION == 1:
        # max(0, 1 + u), with the subgradient 0 at the kink and NaN kept, as torch.relu has it
        v = u + 1.0
        return tl.where(v <= 0, 0.0, v), tl.where(v <= 0, 0.0, tl.full(v.shape, 1.0, v.dtype))
    elif FUNCTION == 2:
        return u * u * 0.5, u
    elif FUNCTION == 4:
        # |u|, with the slope 0 at 0, as torch.abs has it
        return tl.abs(u), tl.where(u > 0, 1.0, tl.where(u < 0, -1.0, tl.zeros(u.shape, u.dtype)))
    else:
        tl.static_assert(FUNCTION == 3)
        return u, tl.full(u.shape, 1.0, u.dtype)
