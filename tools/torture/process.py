"""One attack in this process; the last line that it prints is what it found."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

import torch

from tools.torture.attacks import ATTACKS


def attacked_here(name: str, share: float) -> dict[str, Any]:
    """What an attack found, in this process and with one thread."""
    attack = next(a for a in ATTACKS if a.name == name)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return dataclasses.asdict(attack.run(share))
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    print(json.dumps(attacked_here(sys.argv[1], float(sys.argv[2]))))
