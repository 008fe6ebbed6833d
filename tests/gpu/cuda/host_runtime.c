/* What the launchers ask of the CUDA runtime, for code that the host shim runs: two multiprocessors, no errors. */
int cudaGetDevice(int* device) {
  *device = 0;
  return 0;
}
int cudaDeviceGetAttribute(int* value, int attribute, int device) {
  (void)attribute, (void)device;
  *value = 2;
  return 0;
}
int gk_most_resident_blocks = 2048;
int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel, int threads, unsigned long shared) {
  (void)kernel, (void)shared;
  const int fit = 2048 / threads;
  *blocks = fit < gk_most_resident_blocks ? fit : gk_most_resident_blocks;
  return 0;
}
int cudaGetLastError(void) { return 0; }
const char* cudaGetErrorString(int error) {
  (void)error;
  return "an error of the host shim";
}
