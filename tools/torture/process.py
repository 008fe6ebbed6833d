"""One attack in this process; the last line that it prints is what it found."""

from __future__ import annotations

import dataclasses
import json
import sys

import torch

from tools.torture.attacks import ATTACKS


def main(name: str, share: float) -> None:
    torch.set_num_threads(1)
    attack = next(a for a in ATTACKS if a.name == name)
    print(json.dumps(dataclasses.asdict(attack.run(share))))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
