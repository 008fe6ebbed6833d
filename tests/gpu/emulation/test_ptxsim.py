"""Runs nvcc's and Triton's real PTX on the CPU.  pytest -q test_ptxsim.py   (needs: nvcc, triton wheel, numpy)"""
import os, re, subprocess, pathlib, json, time
import numpy as np, pytest
from gpu.emulation import ptxsim
from gpu.emulation.ptxsim import Module, Memory, KernelFault
HERE = pathlib.Path(__file__).parent

def bf16(a): return ptxsim.f32_to_bf16(np.asarray(a, np.float32))
def unbf16(u): return ptxsim.bf16_to_f32(u)

def ref(p, q, scale):
    p = p.astype(np.float64); q = q.astype(np.float64)
    lp = p - p.max(1, keepdims=True); lp -= np.log(np.exp(lp).sum(1, keepdims=True))
    lq = q - q.max(1, keepdims=True); lq -= np.log(np.exp(lq).sum(1, keepdims=True))
    kl = (np.exp(lp) * (lp - lq)).sum(1, keepdims=True)
    return kl.sum() * scale, np.exp(lp) * (lp - lq - kl) * scale

@pytest.fixture(scope="session")
def nv(tmp_path_factory):
    d = tmp_path_factory.mktemp("ptx"); out = {}
    for a in (80, 90, 100):
        subprocess.run(["nvcc", "-std=c++17", "-O3", "-lineinfo", f"-arch=sm_{a}", "-ptx", str(HERE / "cuda_ext/kernels.cu"), "-o", str(d / f"k{a}.ptx")], check=True)
        out[a] = Module((d / f"k{a}.ptx").read_text())
    return out

def kname(mod, pat): return next(k for k in mod.kernels if re.search(pat, k))
TY = {"f32": (r"IfE", np.float32, lambda a: a.astype(np.float32), lambda a: a, 1e-5), "bf16": (r"I13__nv_bfloat16E", np.uint16, bf16, unbf16, 8e-3), "f16": (r"I6__halfE", np.float16, lambda a: a.astype(np.float16), lambda a: a.astype(np.float32), 1e-3)}

@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize("ty", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("rows,n,stride", [(1, 1, 1), (7, 2, 2), (9, 33, 40), (5, 1000, 1001)])
def test_warp_kernel(nv, arch, ty, rows, n, stride):
    pat, dt, enc, dec, tol = TY[ty]; rng = np.random.default_rng(0)
    P = enc(rng.normal(size=(rows, stride)) * 3); Q = enc(rng.normal(size=(rows, stride)) * 3)
    mem = Memory(); p, q = mem.put(P, "P", readonly=True), mem.put(Q, "Q", readonly=True); loss = mem.put(np.zeros(1, np.float32), "loss"); dp = mem.empty((rows, stride), dt, "dP")
    k = kname(nv[arch], "softmax_kl_warp" + pat)
    nv[arch].launch(k, -(-rows // 4), 128, [p, q, loss, dp, rows, n, stride, 1 / rows], mem)
    l, g = ref(dec(P)[:, :n], dec(Q)[:, :n], 1 / rows)
    assert abs(loss.get()[0] - l) < 1e-5 * max(1, abs(l)); assert np.abs(dec(dp.get())[:, :n] - g).max() < tol * max(1e-3, np.abs(g).max()) + 1e-7
    assert (dp.get()[:, n:].view(np.uint8) == 0xCD).all()              # padding never written

@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize("sched", ["lockstep", "warps", "warps_reversed"])
@pytest.mark.parametrize("pat,dt,T,n", [("softmax_kl_rowIf", "f32", 128, 1000), ("softmax_kl_rowIf", "f32", 128, 4), ("softmax_kl_rowI13", "bf16", 256, 4096), ("softmax_kl_rowI13", "bf16", 256, 3400)])
def test_row_kernel(nv, arch, pat, dt, T, n, sched):
    _, npdt, enc, dec, tol = TY[dt]; rows = 6; stride = -(-n // 8) * 8; rng = np.random.default_rng(1)
    P = enc(rng.normal(size=(rows, stride)) * 3); Q = enc(rng.normal(size=(rows, stride)) * 3)
    mem = Memory(); p, q = mem.put(P, "P", readonly=True), mem.put(Q, "Q", readonly=True); loss = mem.put(np.zeros(1, np.float32), "loss"); dp = mem.empty((rows, stride), npdt, "dP")
    r = nv[arch].launch(kname(nv[arch], pat), rows, T, [p, q, loss, dp, n, stride, 1 / rows], mem, schedule=sched)
    l, g = ref(dec(P)[:, :n], dec(Q)[:, :n], 1 / rows)
    assert abs(loss.get()[0] - l) < 1e-5 * max(1, abs(l)); assert np.abs(dec(dp.get())[:, :n] - g).max() < tol * np.abs(g).max() + 1e-7
    es = npdt(0).itemsize
    assert r.stats["global_load_bytes"] == 2 * rows * n * es and r.stats["global_store_bytes"] == rows * n * es     # each operand touched exactly once
    assert r.stats["global_load_sectors"] <= 1.07 * 2 * rows * (n * es / 32 + 2)   # <= 1 extra sector per 512-byte warp request when a row starts mid-sector

def mutate(mod_text, pat, repl, count=1):
    new, k = re.subn(pat, repl, mod_text, count=count, flags=re.S); assert k; return Module(new)

@pytest.fixture(scope="session")
def ptx80(nv, tmp_path_factory):
    f = tmp_path_factory.mktemp("p") / "k.ptx"; subprocess.run(["nvcc", "-std=c++17", "-O3", "-lineinfo", "-arch=sm_80", "-ptx", str(HERE / "cuda_ext/kernels.cu"), "-o", str(f)], check=True); return f.read_text()

def run_row(mod, n=1000, **kw):
    mem = Memory(); rows = 3; st = kw.pop("stride", 1000); mis = kw.pop("misalign", 0)
    P = np.random.default_rng(0).normal(size=(rows, st)).astype(np.float32)
    p, q = mem.put(P, "P", misalign=mis), mem.put(P + 1, "Q"); loss = mem.put(np.zeros(1, np.float32), "loss"); dp = mem.empty((rows, st), np.float32, "dP")
    return mod.launch(kname(mod, "softmax_kl_rowIf"), rows, 128, [p, q, loss, dp, n, st, 1.0], mem, **kw)

def test_catches_missing_barrier(ptx80):
    body = ptx80.index("softmax_kl_rowIfLi128"); nbar = ptx80[body:].split(".visible .entry")[0:2]; found = 0
    pos = [m.start() for m in re.finditer(r"bar\.sync\s+0;", ptx80)][:10]
    for x in pos:
        t = ptx80[:x] + re.sub(r"bar\.sync\s+0;", "", ptx80[x:], count=1)
        try: run_row(Module(t))
        except KernelFault as e: found += "race" in str(e) or "uninitialised shared" in str(e)
    assert found == len(pos) - 1, (found, len(pos))   # the very first bar.sync guards nothing (no earlier smem use): redundant, correctly not reported

def test_catches_out_of_bounds(ptx80):
    with pytest.raises(KernelFault, match="out-of-bounds global load.*'P'"): run_row(Module(ptx80), n=1008)        # host passes n > stride on the last row
def test_catches_misaligned_row(ptx80):
    with pytest.raises(KernelFault, match="misaligned"): run_row(Module(ptx80), n=1000, stride=1001)
    with pytest.raises(KernelFault, match="misaligned"): run_row(Module(ptx80), misalign=4)
def test_catches_non_atomic_loss(ptx80):
    t = re.sub(r"atom\.global\.add\.f32\s+%f\d+, (\[%rd\d+\]), (%f\d+);", r"st.global.f32 \1, \2;", ptx80)
    with pytest.raises(KernelFault, match="race"): run_row(Module(t))
def test_catches_wrong_shuffle_mask(ptx80):
    t = re.sub(r"(shfl\.sync\.bfly\.b32[^;]*), [^,;]+;", r"\1, 65535;", ptx80, count=1)      # lanes 16-31 call a shuffle whose mask leaves them out
    with pytest.raises(KernelFault, match="member mask"): run_row(Module(t))
def test_source_line_in_message(ptx80):
    with pytest.raises(KernelFault, match=r"softmax_kl\.cuh:\d+"): run_row(Module(ptx80), n=1008)

@pytest.mark.parametrize("ty,vec", [("f32", 4), ("bf16", 8), ("f16", 8)])
@pytest.mark.parametrize("n", [1, 7, 8, 1000, 1003])
def test_negate(nv, ty, vec, n):
    pat, dt, enc, dec, _ = TY[ty]; x = enc(np.r_[np.random.default_rng(0).normal(size=n + 8)]); x = x[:n].copy()
    sp = enc(np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-7])); x[:min(n, 6)] = sp[:min(n, 6)]
    mem = Memory(); a, y = mem.put(x, "x", readonly=True), mem.empty(n, dt, "y")
    nv[80].launch(kname(nv[80], "negate" + {"f32": "If", "bf16": "I13", "f16": "I6"}[ty]), 2, 64, [a, y, n], mem)
    iv = {2: np.uint16, 4: np.uint32}[x.itemsize]
    assert (y.get().view(iv) == (x.view(iv) ^ iv(1 << (8 * x.itemsize - 1)))).all()

def test_approx_noise(nv):
    """2 ulp errors in ex2/lg2/div.full must not move results beyond tolerance"""
    rows, n = 4, 1000; P = np.random.default_rng(0).normal(size=(rows, n)).astype(np.float32); Q = P[::-1].copy()
    mem = Memory(); p, q = mem.put(P), mem.put(Q); loss = mem.put(np.zeros(1, np.float32)); dp = mem.empty((rows, n), np.float32)
    nv[80].launch(kname(nv[80], "softmax_kl_rowIf"), rows, 128, [p, q, loss, dp, n, n, 1.0], mem, approx_noise=2 ** -22)
    l, g = ref(P, Q, 1.0); assert abs(loss.get()[0] - l) < 1e-5 * abs(l); assert np.abs(dp.get() - g).max() < 1e-6

# ---------------------------------------------------------------- Triton's PTX (written by offline_compile.py)
@pytest.mark.parametrize("arch", [80, 90, 100])
def test_triton(arch):
    S = {(r["name"], r["arch"]): r for r in json.loads((HERE / "offline_out/summary.json").read_text())}
    def mod(n): return Module((HERE / f"offline_out/{n}.sm{arch}.ptx").read_text()), S[n, arch]["shared"], S[n, arch]
    rng = np.random.default_rng(0)
    for name, enc, dt, T in (("neg_fp32", TY["f32"][2], np.float32, 128), ("neg_bf16", bf16, np.uint16, 128)):
        m, sh, _ = mod(name); n = 2992; x = enc(rng.normal(size=n)); mem = Memory(); a, y = mem.put(x, readonly=True), mem.empty(n, dt)
        m.launch("neg_kernel", 3, T, [a, y, n, 0, 0], mem, shared=sh); iv = {2: np.uint16, 4: np.uint32}[x.itemsize]
        assert (y.get().view(iv) == (x.view(iv) ^ iv(1 << (8 * x.itemsize - 1)))).all()
    for name, ker, T, ty, rows, n, st, mk in (
            ("kl_row_bf16_4096", "softmax_kl_kernel", 256, "bf16", 3, 4000, 4000, lambda r, n, s: (r, [s, n])),
            ("kl_row_fp32_1024", "softmax_kl_kernel", 128, "f32", 3, 1008, 1024, lambda r, n, s: (r, [s, n])),
            ("kl_multi_fp32_16x32", "softmax_kl_multi", 128, "f32", 21, 16, 32, lambda r, n, s: (-(-r // 16), [r, n, s])),
            ("kl_online_bf16_2048", "softmax_kl_online", 256, "bf16", 2, 5008, 5008, lambda r, n, s: (r, [n, s]))):
        _, npdt, enc, dec, tol = TY[ty]; m, sh, info = mod(name)
        P = enc(rng.normal(size=(rows, st)) * 3); Q = enc(rng.normal(size=(rows, st)) * 3); mem = Memory()
        p, q = mem.put(P, "P", readonly=True), mem.put(Q, "Q", readonly=True); loss = mem.put(np.zeros(1, np.float32), "loss"); dp = mem.empty((rows, st), npdt, "dP")
        g, ints = mk(rows, n, st); res = m.launch(ker, g, T, [p, q, loss, dp, *ints, 1 / rows, 0, 0], mem, shared=sh)
        l, gr = ref(dec(P)[:, :n], dec(Q)[:, :n], 1 / rows)
        assert abs(loss.get()[0] - l) < 2e-5 * max(1, abs(l)), (name, loss.get(), l); assert np.abs(dec(dp.get())[:, :n] - gr).max() < tol * np.abs(gr).max() + 1e-7, name
