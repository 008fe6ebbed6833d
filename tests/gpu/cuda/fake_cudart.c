/* A CUDA runtime without a device: kernels are registered by nvcc's own stubs, and each launch goes to a callback.
   Link nvcc's objects with -cudart none and this file. Nothing here dereferences a device pointer. */
#include <stddef.h>
#include <stdint.h>

typedef struct {
  unsigned x, y, z;
} Extent;
typedef int (*Callback)(const char* kernel, const unsigned* grid, const unsigned* block, void** arguments);
typedef int (*Occupancy)(const char* kernel, int threads);

enum { kInvalidConfiguration = 9, kNoDevice = 100, kInvalidDeviceFunction = 98 };
enum { kMultiprocessorCount = 16 };

static Callback callback;
static Occupancy occupancy;
static int last_error, multiprocessors = 2;
static struct {
  const void* host;
  const char* device;
} kernels[4096];
static int kernel_count;
static struct {
  Extent grid, block;
  size_t shared;
  void* stream;
} configurations[16];
static int configuration_count;

void gk_set_callback(Callback f) { callback = f; }
void gk_set_occupancy(Occupancy f) { occupancy = f; }
void gk_set_multiprocessors(int n) { multiprocessors = n; }

/* ---- what nvcc's stubs call ---- */

void** __cudaRegisterFatBinary(void* binary) {
  static void* handle;
  handle = binary;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void** handle) { (void)handle; }
void __cudaUnregisterFatBinary(void** handle) { (void)handle; }
char __cudaInitModule(void** handle) {
  (void)handle;
  return 1;
}
void __cudaRegisterVar(void** handle, char* host, char* device, const char* name, int external, size_t size,
                       int constant, int global) {
  (void)handle, (void)host, (void)device, (void)name, (void)external, (void)size, (void)constant, (void)global;
}
void __cudaRegisterFunction(void** handle, const char* host, char* device, const char* name, int limit, void* thread,
                            void* block_index, void* block, void* grid, int* warp) {
  (void)handle, (void)device, (void)limit, (void)thread, (void)block_index, (void)block, (void)grid, (void)warp;
  kernels[kernel_count].host = host;
  kernels[kernel_count++].device = name;
}
unsigned __cudaPushCallConfiguration(Extent grid, Extent block, size_t shared, void* stream) {
  configurations[configuration_count].grid = grid;
  configurations[configuration_count].block = block;
  configurations[configuration_count].shared = shared;
  configurations[configuration_count++].stream = stream;
  return 0;
}
int __cudaPopCallConfiguration(Extent* grid, Extent* block, size_t* shared, void* stream) {
  --configuration_count;
  *grid = configurations[configuration_count].grid;
  *block = configurations[configuration_count].block;
  *shared = configurations[configuration_count].shared;
  *(void**)stream = configurations[configuration_count].stream;
  return 0;
}

/* The limits of every GPU since 2012. */
static int launch(const char* kernel, Extent grid, Extent block, void** arguments) {
  const uint64_t threads = (uint64_t)block.x * block.y * block.z;
  if (!grid.x || !grid.y || !grid.z || !threads || threads > 1024 || grid.x > 0x7fffffffu || grid.y > 65535 ||
      grid.z > 65535)
    return last_error = kInvalidConfiguration;
  return last_error = callback ? callback(kernel, &grid.x, &block.x, arguments) : kNoDevice;
}
int __cudaGetKernel(void** kernel, const void* host) {
  for (int i = 0; i < kernel_count; ++i)
    if (kernels[i].host == host) {
      *kernel = (void*)kernels[i].device;
      return 0;
    }
  return kInvalidDeviceFunction;
}
int __cudaLaunchKernel(void* kernel, Extent grid, Extent block, void** arguments, size_t shared, void* stream) {
  (void)shared, (void)stream;
  return launch((const char*)kernel, grid, block, arguments);
}
int cudaLaunchKernel(const void* host, Extent grid, Extent block, void** arguments, size_t shared, void* stream) {
  void* kernel;
  (void)shared, (void)stream;
  if (__cudaGetKernel(&kernel, host)) return last_error = kInvalidDeviceFunction;
  return launch((const char*)kernel, grid, block, arguments);
}

/* ---- what the launchers call ---- */

int cudaGetLastError(void) {
  const int error = last_error;
  last_error = 0;
  return error;
}
int cudaGetDevice(int* device) {
  *device = 0;
  return 0;
}
int cudaDeviceGetAttribute(int* value, int attribute, int device) {
  (void)device;
  *value = attribute == kMultiprocessorCount ? multiprocessors : 0;
  return 0;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* host, int threads, size_t shared,
                                                           unsigned flags) {
  void* kernel;
  (void)shared, (void)flags;
  if (!occupancy || __cudaGetKernel(&kernel, host)) return kInvalidDeviceFunction;
  *blocks = occupancy((const char*)kernel, threads);
  return 0;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* host, int threads, size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, host, threads, shared, 0);
}
const char* cudaGetErrorString(int error) {
  if (error == kInvalidConfiguration) return "invalid configuration argument";
  if (error == kNoDevice) return "no CUDA-capable device is detected";
  return "an error of the fake runtime";
}
