// The kernels for any machine: 16-byte vectors, which every x86-64 and AArch64 has.
#define GK_ISA portable
#define GK_VECTOR_BYTES 16
#include "anchors.h"
#include "divergence_layouts.h"
#include "resample.h"
#include "scalar.h"
#include "gradient_scale.h"

namespace gankernels {

const Kernels& portable_kernels() {
  static const Kernels kernels{"portable",         portable::kl,    portable::anchor_sums, portable::scalar,
                               portable::resample, portable::scale, portable::scale_rows};
  return kernels;
}

}  // namespace gankernels
