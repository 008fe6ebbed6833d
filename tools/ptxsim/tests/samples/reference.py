"""What the sample kernels should compute, and their element types as numpy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tools.ptxsim.simulator import bf16_to_f32, f32_to_bf16
from tools.ptxsim.simulator.types import Array


class Element(NamedTuple):
    """An element type: its mangled name, storage, conversions from and to float32, and relative tolerance."""

    mangled: str
    storage: type
    encode: Callable[[Array], Array]
    decode: Callable[[Array], Array]
    tolerance: float

    @property
    def bits(self) -> type:
        """The unsigned integer of its size."""
        return {2: np.uint16, 4: np.uint32}[np.dtype(self.storage).itemsize]


ELEMENTS = {
    "fp32": Element("If", np.float32, lambda a: a.astype(np.float32), lambda a: a, 1e-5),
    "bf16": Element(
        "I13__nv_bfloat16",
        np.uint16,
        lambda a: f32_to_bf16(a.astype(np.float32)),
        bf16_to_f32,
        8e-3,
    ),
    "fp16": Element(
        "I6__half",
        np.float16,
        lambda a: a.astype(np.float16),
        lambda a: a.astype(np.float32),
        1e-3,
    ),
}


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def softmax_kl(p: Array, q: Array, scale: float) -> tuple[float, Array]:
    """Sum over the rows of KL(softmax(p) || softmax(q)) and its gradient to p, in float64."""
    log_p, log_q = log_softmax(p.astype(np.float64)), log_softmax(q.astype(np.float64))
    divergence = (np.exp(log_p) * (log_p - log_q)).sum(1, keepdims=True)
    return divergence.sum() * scale, np.exp(log_p) * (log_p - log_q - divergence) * scale
