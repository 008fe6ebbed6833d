"""Where programs meet to agree who is last: integers on the device that are zero between launches.

A launch takes its own slot; the last program sets it back to zero. Slots are handed out in turn, so
that launches on several streams do not share one unless thousands are in flight. A launch that is
captured into a CUDA graph keeps its slot for good: replays may run beside anything else.
"""

from __future__ import annotations

import itertools
from functools import cache

import torch
from torch import Tensor

SLOTS = 4096
CAPTURED_SLOTS = 4096
# 16 bytes apart: a pointer's alignment is part of a kernel's specialisation.
STRIDE = 4


class _Tickets:
    def __init__(self, device: torch.device) -> None:
        memory = torch.zeros((SLOTS + CAPTURED_SLOTS) * STRIDE, dtype=torch.int32, device=device)
        slots = list(memory[::STRIDE].unbind())
        self.in_turn = itertools.cycle(slots[:SLOTS])
        self.captured = iter(slots[SLOTS:])


@cache
def _tickets(device: torch.device) -> _Tickets:
    return _Tickets(device)


_seen: set[torch.device] = set()


def ticket(device: torch.device) -> Tensor:
    """A zero on the device for one launch."""
    if device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
        _seen.add(device)
        return next(_tickets(device).in_turn)
    kept = next(_tickets(device).captured, None) if device in _seen else None
    if kept is not None:
        return kept
    # Memory that this graph owns; the fill is captured with it, and precedes each replay's launch.
    return torch.zeros(1, dtype=torch.int32, device=device)
