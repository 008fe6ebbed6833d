// The instantiations that the tests launch.
#include "softmax_kl.cuh"
using bf16 = __nv_bfloat16;
using f16 = __half;
namespace sample {
template __global__ void softmax_kl_row<float, 128, 4, 2>(const float*, const float*, float*, float*, int, int64_t,
                                                          float);
template __global__ void softmax_kl_row<bf16, 256, 8, 2>(const bf16*, const bf16*, float*, bf16*, int, int64_t, float);
template __global__ void softmax_kl_warp<float>(const float*, const float*, float*, float*, int, int, int64_t, float);
template __global__ void softmax_kl_warp<bf16>(const bf16*, const bf16*, float*, bf16*, int, int, int64_t, float);
template __global__ void softmax_kl_warp<f16>(const f16*, const f16*, float*, f16*, int, int, int64_t, float);
template __global__ void negate<float, 4>(const float*, float*, int64_t);
template __global__ void negate<bf16, 8>(const bf16*, bf16*, int64_t);
template __global__ void negate<f16, 8>(const f16*, f16*, int64_t);
}  // namespace sample
