"""GPU kernels without a GPU: what the compilers really emit, executed and inspected on a CPU.

==================  ==================================================================================
``simulator``       runs PTX with memory, race and barrier checks, and counts its traffic
``triton_driver``   a Triton driver on top of it: ``kernel[grid](cpu_tensor, ...)``
``tensors``         CPU tensors as simulated memory; ``initcheck`` knows what nobody has written
``interpreter_bf16``  repairs bf16 under TRITON_INTERPRET=1
``toolchain``       nvcc, ptxas and the disassemblers; ``offline_compile`` Triton's compiler
``sass``            facts from machine code; ``occupancy``, ``roofline`` what follows from them
``row_loop``        what the loop over rows executed; ``execution`` joins a launch with its machine code
``pointer_use``     through which pointers a Triton kernel loads and stores
``loop_reductions`` reductions that a loop carries, in Triton's intermediate representation
``census``          which kernels a test run has executed
==================  ==================================================================================

It knows nothing of whose kernels these are. README.md says how to begin.
"""
