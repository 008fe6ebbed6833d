"""What the simulator raises."""

from __future__ import annotations


class KernelFault(Exception):  # noqa: N818 -- the word of compute-sanitizer and of the hardware
    """The kernel did something that no GPU may be asked to do: the message says what, where and which thread."""


class Unsupported(NotImplementedError):  # noqa: N818
    """The PTX uses something that the simulator does not know. It never guesses."""
