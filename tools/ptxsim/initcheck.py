"""Which bytes of a tensor nobody has written: torch.empty's memory until a kernel or an operator fills it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .simulator.types import Array
from .tensors import DENSE_BYTES

ALLOCATIONS = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})

# By the address of the storage; an entry ends with its tensor.
UNWRITTEN: dict[int, Array] = {}


class TrackEmpty(TorchDispatchMode):
    """While active, torch.empty's memory is uninitialised until a kernel or an operator writes to it."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ALLOCATIONS:
            forget_with(result)
        elif func._schema.is_mutable:
            written = [
                value
                for argument, value in zip(func._schema.arguments, args, strict=False)
                if argument.alias_info is not None and argument.alias_info.is_write
            ]
            for tensor in tree_leaves(written):
                if isinstance(tensor, torch.Tensor):
                    UNWRITTEN.pop(tensor.untyped_storage().data_ptr(), None)
        return result


def forget_with(tensor: torch.Tensor) -> None:
    """Note a new tensor's memory until the tensor is gone; one that is mapped sparsely has too many bytes."""
    storage = tensor.untyped_storage()
    if 0 < storage.nbytes() <= DENSE_BYTES:
        mask = np.ones(storage.nbytes(), bool)
        UNWRITTEN[storage.data_ptr()] = mask
        weakref.finalize(tensor, drop, storage.data_ptr(), mask)


def drop(address: int, mask: Array) -> None:
    """The tensor is gone; its address may belong to another one by now."""
    if UNWRITTEN.get(address) is mask:
        del UNWRITTEN[address]


def unwritten_elements(tensor: torch.Tensor) -> int:
    """How many elements of a contiguous tensor have a byte that nobody wrote."""
    mask = UNWRITTEN.get(tensor.untyped_storage().data_ptr())
    if mask is None:
        return 0
    start = tensor.storage_offset() * tensor.element_size()
    mine = mask[start : start + tensor.numel() * tensor.element_size()]
    return int(mine.reshape(-1, tensor.element_size()).any(1).sum())
