"""For both test paths, ``tests`` and the package with its doctests."""

from importlib.util import find_spec

# Its modules cannot be imported without triton, and they have no doctests.
collect_ignore = [] if find_spec("triton") else ["gankernels/triton"]
