#!/usr/bin/env python3
"""A time bound for a kernel without a GPU: dynamic counts (ptxsim) x static SASS facts (cuobjdump/nvdisasm) x data-sheet rates.
t >= max(DRAM, L2 sectors, issue slots, MUFU, FP32 pipe, atomics); plus Little's law: are enough bytes in flight to reach the DRAM roof?
Everything is a LOWER bound on time (upper bound on speed); caches, launch overhead, DRAM efficiency (~92 %) are not modelled."""
import dataclasses, math, sys, os
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "0")

@dataclasses.dataclass(frozen=True)
class GPU:
    name: str; arch: int; sms: int; ghz: float; dram_gbs: float; fp32_lanes: int; mufu_lanes: int = 16; issue: int = 4; dram_latency_ns: float = 600; launch_us: float = 2.5
GPUS = [GPU("A100-SXM-80GB", 80, 108, 1.41, 2039, 64, dram_latency_ns=500), GPU("H100-SXM", 90, 132, 1.75, 3350, 128, dram_latency_ns=600), GPU("B200", 100, 148, 1.85, 8000, 128, dram_latency_ns=750)]   # sustained clocks; check against the data sheet you trust

def bound(g, *, rows, compulsory_bytes_row, sectors_row, sass_row, mufu_row, fp32_row, loads_in_flight_bytes_thread, threads, regs, smem, atomics_row=0, occupancy):
    occ = occupancy(g.arch, threads, regs, smem); clk = g.ghz * 1e9
    t = {"dram": rows * compulsory_bytes_row / (g.dram_gbs * 1e9), "issue": rows * sass_row / (g.sms * g.issue * clk), "mufu": rows * mufu_row / (g.sms * g.mufu_lanes * clk), "fp32": rows * fp32_row / (g.sms * g.fp32_lanes * clk),
         "l2": rows * sectors_row * 32 / (g.sms * 64 * clk), "atomics": rows * atomics_row / clk}       # ~64 B/clk/SM L2->SM; 1 same-address atomic per clk at the L2 slice
    need = g.dram_gbs * 1e9 * g.dram_latency_ns * 1e-9 / g.sms; have = occ["blocks"] * threads * loads_in_flight_bytes_thread
    b = max(t, key=t.get)
    return {"bound_by": b, "us": {k: round(v * 1e6, 2) for k, v in t.items()}, "dram_fraction": t["dram"] / t[b], "inflight_need_B_per_SM": round(need), "inflight_have_B_per_SM": have, "bandwidth_reachable": min(1.0, have / need), "waves": rows / max(1, occ["blocks"] * g.sms), "occ": occ}

if __name__ == "__main__":
    sys.argv = ["x"]
    import numpy as np
    from gpu.emulation import k_rowloss, offline_compile as O, ptxsim
    from triton.backends.compiler import GPUTarget
    for n, block, warps, ty, es in ((1024, 1024, 4, "bf16", 2), (4096, 4096, 8, "bf16", 2), (1000, 1024, 4, "fp32", 4)):
        for g in GPUS:
            k = O.compile_triton(k_rowloss.kl_rowloss, {"P": "*" + ty, "Q": "*" + ty, "LOSS": "*fp32", "DP": "*" + ty, "stride": "i32", "n": "i32", "scale": "fp32"}, {"BLOCK": block}, GPUTarget("cuda", g.arch, 32), ("P", "Q", "DP", "stride") + (("n",) if n % 16 == 0 else ()), num_warps=warps)
            ru = next(iter(O.resource_usage(k.asm["cubin"]).values())); ss = O.sass_stats(O.sass(k.asm["cubin"])); assert not ss["loops"], "straight-line kernel: static SASS count == dynamic"
            R = 3; mem = ptxsim.Memory(); mk = lambda: (lambda a: ptxsim.f32_to_bf16(a) if ty == "bf16" else a)(np.random.default_rng(0).normal(size=(R, n)).astype(np.float32))
            p, q, l, d = mem.put(mk()), mem.put(mk()), mem.empty(R, np.float32), mem.put(mk())
            st = ptxsim.Module(k.asm["ptx"]).launch("kl_rowloss", R, warps * 32, [p, q, l, d, n, n, 1.0, 0, 0], mem, shared=k.metadata.shared).stats
            ideal = 3 * n * es + 4; moved = (st["global_load_bytes"] + st["global_store_bytes"]) / R
            fp = sum(v for o, v in ss["ops"].items() if o in ("FADD", "FMUL", "FFMA", "FMNMX", "FSEL", "FSETP", "FMNMX3", "FADD2", "FMUL2", "FFMA2"))
            r = bound(g, rows=8192, compulsory_bytes_row=ideal, sectors_row=(st["global_load_sectors"] + st["global_store_sectors"]) / R, sass_row=ss["total"] * warps, mufu_row=sum(ss["mufu"].values()) * warps * 32, fp32_row=fp * warps * 32,
                      loads_in_flight_bytes_thread=ss["mem"].get("LDG.128", 0) * 16 + ss["mem"].get("LDG.64", 0) * 8 + ss["mem"].get("LDG.32", 0) * 4 + ss["mem"].get("LDG.16", 0) * 2, threads=warps * 32, regs=ru["REG"], smem=k.metadata.shared, occupancy=O.occupancy)
            print(f"{ty} n={n} {g.name:14s} regs {ru['REG']:3d} occ {r['occ']['occupancy']:.2f} sass/elem {ss['total']*warps*32/n:6.1f} moved/ideal {moved/ideal:.3f} {r['us']} -> {r['bound_by']}, DRAM roof {100*r['dram_fraction']:.0f}%, in flight {r['inflight_have_B_per_SM']} of {r['inflight_need_B_per_SM']} B/SM, mem ops {ss['mem']}")
