"""The Triton kernels: device code only, one family per file."""
