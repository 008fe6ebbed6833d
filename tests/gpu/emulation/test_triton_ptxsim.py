import os; os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "0")   # with fusion on, lanes of one warp disagree in the last bit of a reduction (ptxsim reports it as a race)
import os, sys, pytest, torch, triton, triton.language as tl, time
from gpu.emulation import ptxsim, triton_ptxsim
from gpu.emulation import k_triton as K
ARCH = int(os.environ.get("SIM_ARCH", "90"))
triton_ptxsim.install(arch=ARCH)

def kl_ref(p, q):
    p = p.double().requires_grad_(); l = torch.nn.functional.kl_div(torch.log_softmax(q.double(), 1), torch.log_softmax(p, 1), log_target=True, reduction="batchmean"); l.backward(); return l.detach(), p.grad

@pytest.mark.parametrize("dt", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows,n", [(1, 1), (5, 7), (3, 1000), (4, 4096)])
def test_row(dt, rows, n):
    g = torch.Generator().manual_seed(0); p = (torch.randn(rows, n, generator=g) * 3).to(dt); q = torch.randn(rows, n, generator=g).to(dt); dp = torch.full_like(p, 7.0); loss = torch.zeros(1)
    k = K.softmax_kl_kernel[(rows,)](p, q, loss, dp, p.stride(0), n, 1 / rows, BLOCK=triton.next_power_of_2(n), num_warps=4)
    l, gr = kl_ref(p, q); torch.testing.assert_close(loss[0].double(), l, atol=2e-5, rtol=2e-5)
    tol = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}[dt]; assert (dp.double() - gr).abs().max() <= tol * max(gr.abs().max(), 1e-3)
    assert k.n_spills == 0 and k.n_regs <= 255

@pytest.mark.parametrize("rows,n", [(1, 1), (21, 10), (100, 32), (33, 27)])
def test_multi(rows, n):
    p = torch.randn(rows, n) * 3; q = torch.randn(rows, n); dp = torch.empty_like(p); loss = torch.zeros(1)
    K.softmax_kl_multi[(triton.cdiv(rows, 16),)](p, q, loss, dp, rows, n, p.stride(0), 1 / rows, ROWS=16, BLOCK=triton.next_power_of_2(n))
    l, gr = kl_ref(p, q); torch.testing.assert_close(loss[0].double(), l, atol=1e-5, rtol=1e-5); assert (dp - gr).abs().max() < 1e-6

def test_online():
    p = torch.randn(2, 5000).bfloat16(); q = torch.randn(2, 5000).bfloat16(); dp = torch.empty_like(p); loss = torch.zeros(1)
    K.softmax_kl_online[(2,)](p, q, loss, dp, 5000, 5000, 0.5, BLOCK=2048, num_warps=8)
    l, gr = kl_ref(p, q); torch.testing.assert_close(loss[0].double(), l, atol=2e-5, rtol=2e-5); assert (dp.double() - gr).abs().max() < 8e-3 * gr.abs().max()

@pytest.mark.parametrize("dt", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("off", [0, 1, 3])
def test_neg_views(dt, off):                       # odd storage offsets -> Triton must fall back to narrow accesses
    x = torch.randn(1003).to(dt)[off:]; y = torch.zeros_like(x); K.neg_kernel[(triton.cdiv(len(x), 256),)](x, y, len(x), BLOCK=256)
    iv = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]; assert torch.equal(y.view(iv), (-x).view(iv))

@triton.jit
def bad_mask(X, Y, n, B: tl.constexpr):
    o = tl.program_id(0) * B + tl.arange(0, B); tl.store(Y + o, tl.load(X + o))
def test_oob_found():
    with pytest.raises(ptxsim.KernelFault, match=r"out-of-bounds.*test_triton_ptxsim.py:\d+"): bad_mask[(2,)](torch.zeros(200), torch.zeros(200), 200, B=128)
@triton.jit
def racy(Y, B: tl.constexpr):
    tl.store(Y, tl.load(Y) + 1)
def test_race_found():
    with pytest.raises(ptxsim.KernelFault, match="global-memory race"): racy[(4,)](torch.zeros(1), B=1)
@triton.autotune(configs=[triton.Config({"BLOCK": b}, num_warps=w) for b in (128, 256) for w in (1, 2)], key=["n"])
@triton.jit
def tuned(X, Y, n, BLOCK: tl.constexpr):
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK); m = o < n; tl.store(Y + o, -tl.load(X + o, mask=m), mask=m)
def test_autotune_runs_every_config():
    x = torch.randn(1000); y = torch.zeros(1000); tuned[lambda m: (triton.cdiv(1000, m["BLOCK"]),)](x, y, 1000); assert torch.equal(y, -x)
@triton.jit
def rnd(Y, seed, B: tl.constexpr):
    o = tl.program_id(0) * B + tl.arange(0, B); tl.store(Y + o, tl.randn(seed, o))
def test_philox():
    y = torch.zeros(4096); rnd[(4,)](y, 1234, B=1024); assert abs(y.mean()) < 0.05 and abs(y.std() - 1) < 0.05
@triton.jit
def dot_k(A, B_, C, N: tl.constexpr):
    i = tl.arange(0, N); o = i[:, None] * N + i[None, :]; tl.store(C + o, tl.dot(tl.load(A + o), tl.load(B_ + o), input_precision="ieee"))
def test_traffic():
    x = torch.randn(8192); y = torch.zeros(8192); K.neg_kernel[(8,)](x, y, 8192, BLOCK=1024, num_warps=4); s = triton_ptxsim.last.stats
    assert s["global_load_bytes"] == s["global_store_bytes"] == 8192 * 4 and s["global_load_sectors"] == s["global_store_sectors"] == 1024 and s["global_load_128b_threads"] == 2048
