"""GPU kernels without a GPU: what the compilers really emit, executed and inspected on a CPU.

==================  ==================================================================================
``ptxsim``          runs PTX with memory, race and barrier checks, and counts its traffic
``triton_ptxsim``   a Triton driver on top of it: ``kernel[grid](cpu_tensor, ...)``
``tensors``         CPU tensors as simulated memory; ``initcheck`` knows what nobody has written
``interpreter_bf16``  repairs bf16 under TRITON_INTERPRET=1
``toolchain``       nvcc, ptxas and the disassemblers; ``offline_compile`` Triton's compiler
``sass``            facts from machine code; ``occupancy``, ``roofline`` what follows from them
``census``          which kernels a test run has executed
``samples``         kernels for the tests of all this
==================  ==================================================================================
"""
