#!/usr/bin/env python3
"""Compile Triton / CUDA kernels for GPUs that are not there, and read static facts from the result.

Works with no GPU, no driver.  Needs: triton wheel (bundles ptxas 12.9, ptxas-blackwell 13.x, cuobjdump, nvdisasm).
MUST NOT run in a process that has TRITON_INTERPRET=1 (tl.max & co. become interpreted functions at import).
"""
from __future__ import annotations
import collections, dataclasses, json, os, pathlib, re, subprocess, sys, tempfile, time

if os.environ.get("TRITON_INTERPRET") == "1":
    raise RuntimeError("offline_compile must run in its own process, without TRITON_INTERPRET")
import triton
from triton.compiler import ASTSource
from triton.backends.compiler import GPUTarget

BIN = pathlib.Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

# ---------------------------------------------------------------- Triton
def compile_triton(fn, sig: dict, constexprs: dict, target: GPUTarget, divisible=(), **options):
    """sig: {arg: '*fp32'|'*bf16'|'i32'|'fp32'|...}; constexprs: {arg: value}; divisible: args known % 16 == 0
    (what the Triton launcher finds by itself for aligned pointers / sizes; without it there are no wide loads)."""
    names = list(fn.arg_names)
    signature = {n: ("constexpr" if n in constexprs else sig[n]) for n in names}
    attrs = {(names.index(n),): [["tt.divisibility", 16]] for n in divisible}
    src = ASTSource(fn, signature, constexprs=constexprs, attrs=attrs)
    return triton.compile(src, target=target, options=options)

# ---------------------------------------------------------------- ptxas / cubin
def ptxas_for(arch: int) -> str:
    return str(BIN / ("ptxas-blackwell" if arch >= 90 else "ptxas"))   # same choice as triton 3.9

def gpu_name(arch: int) -> str:
    return f"sm_{arch}" + ("a" if arch >= 90 else "")

def ptxas_verbose(ptx: str, arch: int, *extra) -> dict:
    """{entry: {'regs','spill_stores','spill_loads','stack','smem','barriers'}} from ptxas -v; also returns cubin bytes"""
    with tempfile.TemporaryDirectory() as d:
        p = pathlib.Path(d)
        (p / "k.ptx").write_text(ptx)
        m = re.search(r"^\.target\s+(\S+)", ptx, re.M)
        tgt = m.group(1).rstrip(",") if m else gpu_name(arch)
        r = subprocess.run([ptxas_for(arch), "-v", f"--gpu-name={tgt}", *extra, str(p / "k.ptx"), "-o", str(p / "k.cubin")],
                           capture_output=True, text=True)
        if r.returncode:
            raise RuntimeError(r.stderr)
        cubin = (p / "k.cubin").read_bytes()
    out, cur = {}, None
    for line in r.stderr.splitlines():
        if m := re.search(r"Compiling entry function '(\S+)'", line): cur = out.setdefault(m.group(1), {})
        elif m := re.search(r"Function properties for (\S+)", line): cur = out.setdefault(m.group(1), {})
        elif m := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            cur.update(stack=int(m[1]), spill_stores=int(m[2]), spill_loads=int(m[3]))
        elif m := re.search(r"Used (\d+) registers", line):
            cur["regs"] = int(m[1])
            cur["barriers"] = int(b[1]) if (b := re.search(r"used (\d+) barriers", line)) else 0
            cur["smem"] = int(s[1]) if (s := re.search(r"(\d+) bytes smem", line)) else 0
    return {"entries": out, "cubin": cubin, "log": r.stderr}

def resource_usage(cubin: bytes) -> dict:
    """{entry: {'REG','STACK','SHARED','LOCAL',...}} from cuobjdump --dump-resource-usage"""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as f:
        f.write(cubin); f.flush()
        t = subprocess.run([str(BIN / "cuobjdump"), "--dump-resource-usage", f.name], capture_output=True, text=True, check=True).stdout
    out, cur = {}, None
    for line in t.splitlines():
        if m := re.search(r"Function (\S+):", line): cur = m.group(1)
        elif cur and "REG:" in line: out[cur] = {k: int(v) for k, v in re.findall(r"(\w+(?:\[\d+\])?):(\d+)", line)}; cur = None
    return out

def sass(cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as f:
        f.write(cubin); f.flush()
        return subprocess.run([str(BIN / "nvdisasm"), "-c", f.name], capture_output=True, text=True, check=True).stdout

_SASS = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:\{\s*)?(@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)((?:\.[A-Za-z0-9_]+)*)([^;]*);?")
def sass_instrs(text: str):
    """[(address, predicate, opcode, modifiers, operands)] - stops at the trailing self-branch + NOP padding"""
    out = []
    labels = {}
    for line in text.splitlines():
        if m := re.match(r"^(\.L_x_\d+):", line): labels[m[1]] = len(out)
        elif m := _SASS.match(line): out.append((int(m[1], 16), (m[2] or "").strip(), m[3], m[4], m[5].strip()))
    return out, labels

MEM = {"LDG", "STG", "LDS", "STS", "LDL", "STL", "RED", "REDG", "ATOM", "ATOMG", "LDGSTS", "UBLKCP", "LD", "ST"}
def width_bytes(mods: str) -> int:
    ms = mods.split(".")
    for w in ("256", "128", "64"):
        if w in ms: return int(w) // 8
    if "U8" in ms or "S8" in ms: return 1
    if "U16" in ms or "S16" in ms: return 2
    return 4

def sass_stats(text: str) -> dict:
    ins, labels = sass_instrs(text)
    ops, mem, mufu = collections.Counter(), collections.Counter(), collections.Counter()
    for _, _, op, mods, _ in ins:
        ops[op] += 1
        if op in MEM: mem[f"{op}.{width_bytes(mods) * 8}"] += 1
        if op == "MUFU": mufu[mods.strip(".")] += 1
    loops = []                                            # backward branches => loop bodies
    for i, (_, _, op, _, operands) in enumerate(ins):
        if op == "BRA" and (m := re.search(r"(\.L_x_\d+)", operands)) and m[1] in labels and labels[m[1]] < i:
            body = ins[labels[m[1]]:i + 1]
            loops.append({"len": len(body), "mem": dict(collections.Counter(f"{b[2]}.{width_bytes(b[3]) * 8}" for b in body if b[2] in MEM)),
                          "mufu": sum(b[2] == "MUFU" for b in body), "fp32": sum(b[2] in ("FADD", "FMUL", "FFMA", "FMNMX", "FMNMX3", "FSEL", "FSETP", "FADD2", "FMUL2", "FFMA2") for b in body)})
    total = sum(n for o, n in ops.items() if o != "NOP")
    return {"total": total, "ops": dict(ops.most_common()), "mem": dict(mem), "mufu": dict(mufu), "loops": loops}

def ptx_stats(ptx: str) -> dict:
    ops, mem = collections.Counter(), collections.Counter()
    body = re.sub(r"//.*", "", ptx)
    body = re.sub(r"\.section.*", "", body, flags=re.S)
    for line in re.split(r"[;\n]", body):
        line = line.strip().lstrip("{").strip()
        line = re.sub(r"^@!?%\w+\s+", "", line)
        if m := re.match(r"([a-z][a-z0-9]*(?:[.:][A-Za-z0-9_:]+)*)\s", line + " "):
            op = m[1]
            if op.startswith(("$", ".", "reg")): continue
            ops[op] += 1
            if op.startswith(("ld.", "st.", "red.", "atom.")): mem[op] += 1
    return {"ops": dict(ops.most_common()), "mem": dict(mem)}

# ---------------------------------------------------------------- occupancy (CUDA programming guide, table "technical specifications")
@dataclasses.dataclass(frozen=True)
class SM:
    threads: int; blocks: int; regs: int; smem: int; smem_block: int; reserved: int = 1024
    warp_alloc_gran: int = 4; reg_unit: int = 256; smem_unit: int = 128
SMS = {80: SM(2048, 32, 65536, 164 << 10, 163 << 10), 86: SM(1536, 16, 65536, 100 << 10, 99 << 10), 89: SM(1536, 24, 65536, 100 << 10, 99 << 10),
       90: SM(2048, 32, 65536, 228 << 10, 227 << 10), 100: SM(2048, 32, 65536, 228 << 10, 227 << 10), 120: SM(1536, 24, 65536, 100 << 10, 99 << 10)}

def occupancy(arch: int, threads: int, regs: int, smem: int = 0) -> dict:
    s = SMS[arch]
    up = lambda a, b: -(-a // b) * b
    warps = -(-threads // 32)
    lim = {"threads": s.threads // (warps * 32), "blocks": s.blocks}
    rw = up(max(regs, 1) * 32, s.reg_unit)                      # registers per warp
    lim["regs"] = (s.regs // 4 // rw) * 4 // warps                # 4 sub-partitions of 16384 registers; a warp lives in one
    lim["smem"] = s.smem // up(smem + s.reserved, s.smem_unit) if smem + s.reserved else s.blocks
    b = min(lim.values())
    return {"blocks": b, "warps": b * warps, "occupancy": b * warps * 32 / s.threads, "limits": lim,
            "limiter": min(lim, key=lim.get)}

# ---------------------------------------------------------------- demo
def main(archs=(80, 90, 100)):
    from gpu.emulation import k_triton as K
    BIG = dict(sig={"P": "*bf16", "Q": "*bf16", "LOSS": "*fp32", "DP": "*bf16", "stride": "i32", "n": "i32", "scale": "fp32", "n_rows": "i32", "X": "*bf16", "Y": "*bf16"})
    cases = [
        ("neg_bf16", K.neg_kernel, {"X": "*bf16", "Y": "*bf16", "n": "i32"}, {"BLOCK": 1024}, ("X", "Y", "n"), dict(num_warps=4)),
        ("neg_fp32", K.neg_kernel, {"X": "*fp32", "Y": "*fp32", "n": "i32"}, {"BLOCK": 1024}, ("X", "Y", "n"), dict(num_warps=4)),
        ("kl_row_bf16_4096", K.softmax_kl_kernel, BIG["sig"], {"BLOCK": 4096}, ("P", "Q", "DP", "stride", "n"), dict(num_warps=8)),
        ("kl_row_fp32_1024", K.softmax_kl_kernel, {**BIG["sig"], "P": "*fp32", "Q": "*fp32", "DP": "*fp32"}, {"BLOCK": 1024}, ("P", "Q", "DP", "stride", "n"), dict(num_warps=4)),
        ("kl_multi_fp32_16x32", K.softmax_kl_multi, {**BIG["sig"], "P": "*fp32", "Q": "*fp32", "DP": "*fp32"}, {"ROWS": 16, "BLOCK": 32}, ("P", "Q", "DP", "stride", "n"), dict(num_warps=4)),
        ("kl_online_bf16_2048", K.softmax_kl_online, BIG["sig"], {"BLOCK": 2048}, ("P", "Q", "DP", "stride", "n"), dict(num_warps=8)),
    ]
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "offline_out"); out.mkdir(exist_ok=True)
    rows = []
    for name, fn, sig, ce, div, opt in cases:
        for arch in archs:
            t = time.time()
            k = compile_triton(fn, {n: sig.get(n) for n in fn.arg_names}, ce, GPUTarget("cuda", arch, 32), div, **opt)
            dt = time.time() - t
            ru = next(iter(resource_usage(k.asm["cubin"]).values()))
            v = ptxas_verbose(k.asm["ptx"], arch, "--fmad=false", "--regAllocOptLevel=2"); e = next(iter(v["entries"].values()))
            ss = sass_stats(sass(k.asm["cubin"])); ps = ptx_stats(k.asm["ptx"])
            threads = k.metadata.num_warps * 32
            occ = occupancy(arch, threads, ru["REG"], k.metadata.shared)
            rows.append(dict(name=name, arch=arch, keys=sorted(k.asm), secs=round(dt, 2), regs=ru["REG"], regs_ptxas=e["regs"], spills=e["spill_stores"] + e["spill_loads"],
                             local=ru["LOCAL"], stack=ru["STACK"], shared=k.metadata.shared, sass_total=ss["total"], sass_mem=ss["mem"], mufu=ss["mufu"], ptx_mem=ps["mem"], loops=ss["loops"], occ=occ))
            for ext in ("ttir", "ttgir", "llir", "ptx"): (out / f"{name}.sm{arch}.{ext}").write_text(k.asm[ext])
            (out / f"{name}.sm{arch}.cubin").write_bytes(k.asm["cubin"]); (out / f"{name}.sm{arch}.sass").write_text(sass(k.asm["cubin"]))
            r = rows[-1]
            print(f"{name:22s} sm_{arch:<3d} {dt:5.2f}s regs {r['regs']:3d}/{r['regs_ptxas']:3d} spills {r['spills']} smem {r['shared']:5d} sass {r['sass_total']:4d} occ {occ['occupancy']:.2f} ({occ['limiter']}) {r['sass_mem']} mufu {r['mufu']}")
        try:
            for hip in ("gfx942", "gfx1100"):
                t = time.time(); k = compile_triton(fn, {n: sig.get(n) for n in fn.arg_names}, ce, GPUTarget("hip", hip, 64 if hip == "gfx942" else 32), div, **opt)
                (out / f"{name}.{hip}.amdgcn").write_text(k.asm["amdgcn"]); (out / f"{name}.{hip}.hsaco").write_bytes(k.asm["hsaco"]); (out / f"{name}.{hip}.json").write_text(json.dumps({kk: str(vv) for kk, vv in k.metadata._asdict().items()}))
                sg = re.search(r"\.sgpr_count:\s*(\d+)", k.asm["amdgcn"]); vg = re.search(r"\.vgpr_count:\s*(\d+)", k.asm["amdgcn"]); sp = re.search(r"\.vgpr_spill_count:\s*(\d+)", k.asm["amdgcn"])
                print(f"{name:22s} {hip} {time.time()-t:5.2f}s keys {sorted(k.asm)} vgpr {vg and vg[1]} sgpr {sg and sg[1]} vspill {sp and sp[1]} loads {dict(collections.Counter(re.findall(r'(?:global|buffer)_(?:load|store|atomic)_[a-z0-9_]+', k.asm['amdgcn'])))}")
        except Exception as ex:
            print(name, "hip failed", type(ex).__name__, str(ex)[:300])
    (out / "summary.json").write_text(json.dumps(rows, indent=1))

if __name__ == "__main__":
    main()
