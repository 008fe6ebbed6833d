#!/usr/bin/env python3
"""A Triton driver for a GPU that is not there: kernel[grid](cpu_tensor, ...) goes through Triton's real JIT
(specialisation, TTIR -> TTGIR -> LLVM -> PTX -> ptxas cubin for sm_80/90/100) and the PTX then runs in ptxsim on the CPU.

    import triton_ptxsim; triton_ptxsim.install(arch=90)      # before the first launch; not with TRITON_INTERPRET=1
    k = my_kernel[(grid,)](x, y, n, BLOCK=1024)               # x, y: CPU torch tensors
    k.n_regs, k.n_spills, triton_ptxsim.last.stats            # registers/spills from cuobjdump, dynamic counts from ptxsim
"""
import pathlib, re, subprocess, tempfile
import torch, triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from gpu.emulation import ptxsim

last = None
BIN = pathlib.Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
SMEM = {80: 166912, 86: 101376, 89: 101376, 90: 232448, 100: 232448, 120: 101376}


def resource_usage(cubin):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as f:
        f.write(cubin); f.flush()
        t = subprocess.run([str(BIN / "cuobjdump"), "--dump-resource-usage", f.name], capture_output=True, text=True, check=True).stdout
    return {k: int(v) for k, v in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", t)}


class Utils:
    def __init__(self, arch): self.arch, self.pending = arch, None
    def get_device_properties(self, device): return {"max_shared_mem": SMEM[self.arch], "multiprocessor_count": 132, "max_num_regs": 65536, "warpSize": 32, "sm_clock_rate": 1, "mem_clock_rate": 1, "mem_bus_width": 1}
    def load_binary(self, name, cubin, shared, device):
        ru = resource_usage(cubin); mod = ptxsim.Module(self.pending)
        return mod, (mod, name, shared), ru["REG"], ru["STACK"] + ru["LOCAL"], 1024
    def unload_module(self, m): pass


class Launcher:
    def __init__(self, src, metadata):
        self.sig = list(src.signature.values()); self.meta = metadata
        if metadata.global_scratch_size or metadata.num_ctas != 1 or any("tensordesc" in str(s) for s in self.sig): raise NotImplementedError("clusters / TMA descriptors / global scratch")
    def __call__(self, gx, gy, gz, stream, function, packed, launch_metadata, enter, exit_, *args):
        global last
        mod, name, shared = function; mem = ptxsim.Memory(); vals = []; spans = {}
        ts = [a for a, s in zip(args, self.sig) if isinstance(a, torch.Tensor)]
        for t in ts:                                            # one buffer per storage; only bytes reachable through the views are mapped
            if t.device.type != "cpu": raise TypeError("ptxsim runs on CPU tensors")
            st = t.untyped_storage(); key = st.data_ptr()
            lo = t.data_ptr() - key; n = (sum((s - 1) * d for s, d in zip(t.shape, t.stride())) + 1) * t.element_size() if t.numel() else 0
            spans.setdefault(key, (st, []))[1].append((lo, lo + n))
        bufs = {}
        for key, (st, sp) in spans.items():
            raw = torch.empty(0, dtype=torch.uint8).set_(st).numpy() if st.nbytes() else __import__("numpy").zeros(0, "uint8")
            b = mem.put(raw, f"arg storage {[s for s in sp]}", misalign=key % 256); o = b.addr - ptxsim.GLOBAL_BASE; mem.flags[o:o + raw.size] = 0
            for lo, hi in sp: mem.flags[o + lo:o + hi] = 3
            bufs[key] = (b, raw)
        for a, s in zip(args, self.sig):
            if s == "constexpr": continue
            if isinstance(a, torch.Tensor): st = a.untyped_storage(); vals.append(bufs[st.data_ptr()][0].addr + a.data_ptr() - st.data_ptr())
            elif a is None: vals.append(0)
            elif isinstance(a, bool): vals.append(int(a))
            else: vals.append(a)
        k = mod.kernels[name]; vals += [0] * (len(k.params) - len(vals))      # scratch pointers
        last = mod.launch(name, (gx, gy, gz), self.meta.num_warps * 32, vals, mem, shared=shared, **sim_options)
        for b, raw in bufs.values(): o = b.addr - ptxsim.GLOBAL_BASE; raw[:] = mem.heap[o:o + raw.size]


sim_options = {}


class PtxSimDriver:
    launcher_cls = Launcher
    def __init__(self, arch=90): self.arch, self.utils = arch, Utils(arch)
    def get_current_target(self): return GPUTarget("cuda", self.arch, 32)
    def get_current_device(self): return 0
    def set_current_device(self, d): pass
    def get_current_stream(self, d=None): return 0
    def get_active_torch_device(self): return torch.device("cpu")
    def get_device_interface(self): return torch.cpu
    def get_benchmarker(self): return lambda fn, quantiles=None, **k: (fn(), [1.0] * 3)[1]
    def map_python_to_cpp_type(self, ty): return ty


def install(arch=90, **options):
    d = PtxSimDriver(arch); driver.set_active(d); sim_options.clear(); sim_options.update(options)
    def hook(module, function, name, metadata_group, hash):
        d.utils.pending = pathlib.Path(next(p for n, p in metadata_group.items() if n.endswith(".ptx"))).read_text()
    knobs.runtime.kernel_load_start_hook = hook
    return d
