"""Writes docs/gpu-kernels.md: what every GPU kernel compiles to, and what bounds its speed.

    python -m tools.gpu_table          # all of it: about five minutes
    python -m tools.gpu_table triton   # prints the lines of one compiler, writes nothing
    python -m tools.gpu_table peers    # counts what users would run instead: docs/results/gpu-peers.json

Every kernel of ``gankernels.triton`` and of ``csrc/cuda`` is compiled for sm_80, sm_90 and sm_100 by the
compilers themselves and launched once in the emulator on a few rows. Registers and spills are those of the
machine code, bytes and widths those of the accesses that happened. No GPU is involved, and no figure is a time.
"""
