"""Builds gankernels._C from csrc/ against the installed torch.

Flags (environment variables, "1" to set):
  FORCE_CPU               build no CUDA code, even where a CUDA torch and nvcc are present
  FORCE_CUDA              build CUDA code, or fail; with neither flag, built where torch and nvcc are there for it
  TORCH_CUDA_ARCH_LIST    the GPUs to build for, by default 8.0, 9.0 and 10.0 with PTX for later ones
  GANKERNELS_REQUIRE_EXT  fail the installation where the extension does not compile; without it the package
                          installs all the same and runs on its PyTorch reference, saying so at import
  GANKERNELS_WERROR       warnings about csrc/ are errors
  GANKERNELS_PIN_TORCH    the package requires the minor release of torch that it was built against
  GANKERNELS_LOCAL_VERSION
                          a label for the wheel's version, as in 0.1.0+torch2.13.cpu: wheels for several torches
                          differ in name; `auto` is that of the torch that is built against; an sdist has none
  DEBUG                   -O0 -g and assertions
"""

import sys
from pathlib import Path

from setuptools import Extension, setup

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tools.setup_helpers.commands import commands
from tools.setup_helpers.environment import building_torch, requirements
from tools.setup_helpers.extension import extension
from tools.setup_helpers.version import version

setup(
    version=version(),
    # Without torch, what stands for the extension leaves the reason why it is not there.
    ext_modules=[extension() if building_torch() else Extension("gankernels._C", [])],
    cmdclass=commands(),
    install_requires=requirements(),
)
