"""How the operators run on a GPU: graphs, streams, devices, no waiting for the host, torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile

import gankernels as gk
from gpu.device.waiting import no_synchronisation

K = 20


def losses() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Losses of real and fake logits (N, K) on the GPU."""
    a1, a0 = (torch.softmax(torch.randn(K, device="cuda"), 0) for _ in range(2))
    return {
        "realness_d": lambda r, f: gk.realness_d_loss(r, f, a1, a0),
        "realness_g": lambda r, f: gk.realness_g_loss(r, f, a1, a0),
        "softmax_kl_logits": gk.softmax_kl_logits,
        "js_divergence": gk.js_divergence,
        "logistic_d": gk.logistic_d_loss,
        "relativistic_d": gk.relativistic_d_loss,
        "hinge_g": lambda r, f: gk.hinge_g_loss(f),
    }


NAMES = (
    "realness_d",
    "realness_g",
    "softmax_kl_logits",
    "js_divergence",
    "logistic_d",
    "relativistic_d",
    "hinge_g",
)


def leaves(n: int = 128) -> tuple[Tensor, Tensor]:
    real, fake = (torch.randn(n, K, device="cuda", requires_grad=True) for _ in range(2))
    return real, fake


@pytest.mark.parametrize("name", NAMES)
def test_the_host_never_waits(name: str) -> None:
    loss = losses()[name]
    real, fake = leaves()
    loss(real, fake).backward()  # compiled, allocated
    torch.cuda.synchronize()
    with no_synchronisation():
        loss(real, fake).backward()
        gk.value_and_grad(loss)(real, fake)


def kernels(run: Callable[[], object]) -> list[str]:
    """The kernels that ran on the GPU, copies and fills of memory included."""
    run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        run()
        torch.cuda.synchronize()
    device = torch.autograd.DeviceType.CUDA
    return [event.name for event in trace.events() if event.device_type == device]


def test_one_launch_for_value_and_gradients() -> None:
    real, fake = leaves(4096)
    anchor = torch.softmax(torch.randn(K, device="cuda"), 0)
    compute = gk.value_and_grad(gk.realness_d_loss)
    with torch.no_grad():
        launched = kernels(lambda: compute(real, fake, anchor, anchor))
    assert len(launched) == 1, launched


def test_backward_adds_one_launch() -> None:
    real, fake = leaves(4096)
    anchor = torch.softmax(torch.randn(K, device="cuda"), 0)
    grad_output = torch.ones((), device="cuda")

    def run() -> None:
        loss = gk.realness_d_loss(real, fake, anchor, anchor)
        torch.autograd.grad(loss, (real, fake), grad_output)

    launched = kernels(run)
    assert len(launched) <= 2, launched


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_backward_takes_no_memory_of_its_own(factor: float) -> None:
    """Gradients are multiplied where they lie."""
    real, fake = (torch.randn(2048, 4096, device="cuda", requires_grad=True) for _ in range(2))
    anchor = torch.softmax(torch.randn(4096, device="cuda"), 0)
    grad_output = torch.tensor(factor, device="cuda")
    for _ in range(2):  # scratch memory is there from then on
        real.grad = fake.grad = None
        loss = gk.realness_d_loss(real, fake, anchor, anchor)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss.backward(grad_output)
        more = torch.cuda.max_memory_allocated() - before
    assert more < real.numel() * real.element_size() / 2


class Step:
    """A whole training step of a small GAN: D on both batches, then G, two optimizers."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.generator: torch.nn.Module = torch.nn.Sequential(
            torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32)
        ).cuda()
        self.discriminator: torch.nn.Module = torch.nn.Sequential(
            torch.nn.Linear(32, 64), torch.nn.LeakyReLU(0.2), torch.nn.Linear(64, K)
        ).cuda()
        options = {"lr": 1e-3, "capturable": True}
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), **options)
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), **options)
        generator = torch.Generator().manual_seed(1)
        weights = torch.rand(2, K, generator=generator) + 0.1
        self.anchors = (weights / weights.sum(1, keepdim=True)).cuda()
        self.images = torch.randn(64, 32, generator=generator).cuda()
        self.noise = torch.randn(64, 8, generator=generator).cuda()

    def __call__(self) -> tuple[Tensor, Tensor]:
        fake = self.generator(self.noise)
        real_logits = self.discriminator(self.images)
        fake_logits = self.discriminator(fake.detach())
        loss_d = gk.realness_d_loss(real_logits, fake_logits, *self.anchors)
        self.optimizer_d.zero_grad()
        loss_d.backward()
        self.optimizer_d.step()
        fake_logits = self.discriminator(gk.gradient_reversal(fake, alpha=-1.0))
        real_logits = self.discriminator(self.images).detach()
        loss_g = gk.realness_g_loss(real_logits, fake_logits, *self.anchors)
        self.optimizer_g.zero_grad()
        loss_g.backward()
        self.optimizer_g.step()
        return loss_d.detach(), loss_g.detach()

    def parameters(self) -> list[Tensor]:
        modules = (self.generator, self.discriminator)
        return [p.detach().clone() for module in modules for p in module.parameters()]


def test_a_whole_training_step_as_a_cuda_graph() -> None:
    """Captured once, replayed: the parameters move as they do without a graph."""
    warm_up, replays = 3, 5
    eager = Step()
    for _ in range(warm_up + replays):
        eager()

    step = Step()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm_up):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for _ in range(replays):
        graph.replay()
    for captured, expected in zip(step.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(captured, expected, rtol=1e-5, atol=1e-6)


def test_replays_beside_other_launches() -> None:
    """A captured launch keeps its ticket: replays and eager launches on another stream are independent."""
    real, fake = (torch.randn(4096, K, device="cuda") for _ in range(2))
    anchor = torch.softmax(torch.randn(K, device="cuda"), 0)
    compute = gk.value_and_grad(gk.realness_d_loss)
    expected = compute(real, fake, anchor, anchor)[0]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = compute(real, fake, anchor, anchor)[0]
    other = torch.cuda.Stream()
    results = []
    for _ in range(200):
        graph.replay()
        with torch.cuda.stream(other):
            results.append(compute(real, fake, anchor, anchor)[0])
    torch.cuda.synchronize()
    assert torch.equal(captured, expected)
    assert all(torch.equal(result, expected) for result in results)


def test_streams() -> None:
    """Launches go to the current stream: work queued before is seen, work after waits."""
    stream = torch.cuda.Stream()
    real, fake = (torch.randn(4096, 1024, device="cuda") for _ in range(2))
    anchor = torch.softmax(torch.randn(1024, device="cuda"), 0)
    expected = gk.realness_d_loss(real * 2, fake * 2, anchor, anchor)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)  # some 10 ms, which a launch on another stream would overtake
        doubled = real * 2, fake * 2
        loss = gk.realness_d_loss(*doubled, anchor, anchor)
    stream.synchronize()
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("name", NAMES)
def test_compile(name: str) -> None:
    loss = losses()[name]
    compiled = torch.compile(lambda r, f: loss(r * 2, f * 2) * 3, fullgraph=True)
    real, fake = leaves()
    expected = loss(real * 2, fake * 2) * 3
    value = compiled(real, fake)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    needed = [x for x in (real, fake) if name != "hinge_g" or x is fake]
    got = torch.autograd.grad(value, needed)
    wanted = torch.autograd.grad(expected, needed)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_compile_as_a_cuda_graph() -> None:
    loss = losses()["realness_d"]
    compiled = torch.compile(lambda r, f: loss(r * 2, f * 2), mode="reduce-overhead")
    real, fake = leaves()
    expected = loss(real * 2, fake * 2)
    for _ in range(4):
        torch.testing.assert_close(compiled(real, fake), expected, rtol=1e-5, atol=1e-6)


def test_ddp_on_nccl(tmp_path: Path) -> None:
    """One process of one: the losses' gradients go through the reducer's hooks, and the parameters move alike."""
    if not dist.is_nccl_available():
        pytest.skip("this torch has no NCCL")
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("nccl", store=store, rank=0, world_size=1)
    try:
        plain, parallel = Step(), Step()
        options: dict[str, Any] = {"device_ids": [0], "broadcast_buffers": False}
        parallel.generator = DistributedDataParallel(parallel.generator, **options)
        parallel.discriminator = DistributedDataParallel(parallel.discriminator, **options)
        for _ in range(3):
            plain()
            parallel()
        for a, b in zip(parallel.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    finally:
        dist.destroy_process_group()


def test_autocast_and_grad_scaler() -> None:
    """fp16 gradients of a mean over many rows reach the scaler before they are divided."""
    linear = torch.nn.Linear(32, K).cuda()
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**16)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1)
    anchor = torch.softmax(torch.randn(K, device="cuda"), 0)
    x = torch.randn(8192, 32, device="cuda")
    with torch.autocast("cuda", torch.float16):
        loss = gk.softmax_kl(linear(x), anchor)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    gradient = linear.weight.grad
    gk.softmax_kl(
        torch.nn.functional.linear(
            x, weight := linear.weight.detach().requires_grad_(), linear.bias
        ),
        anchor,
    ).backward()
    torch.testing.assert_close(gradient, weight.grad, rtol=2e-2, atol=2e-4)


def test_tensors_of_another_device_than_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    real, fake = (torch.randn(4096, K, device="cuda:1") for _ in range(2))
    anchor = torch.softmax(torch.randn(K, device="cuda:1"), 0)
    assert torch.cuda.current_device() == 0
    loss, gradients = gk.value_and_grad(gk.realness_d_loss)(real, fake, anchor, anchor)
    assert loss.device == torch.device("cuda:1")
    expected = gk.reference.realness_d_loss(real, fake, anchor, anchor)
    torch.testing.assert_close(loss, expected)
    assert all(g is not None and g.device == real.device for g in gradients)
    assert torch.cuda.current_device() == 0


def test_operands_on_different_devices_are_refused() -> None:
    real, fake = leaves()
    with pytest.raises(RuntimeError, match="must be on the same device"):
        gk.realness_d_loss(real, fake, torch.rand(K), torch.rand(K))


def test_no_memory_beyond_the_outputs_and_the_partial_sums() -> None:
    real, fake = (torch.randn(4096, 1024, device="cuda") for _ in range(2))
    anchor = torch.softmax(torch.randn(1024, device="cuda"), 0)
    compute = gk.value_and_grad(gk.realness_d_loss)
    compute(real, fake, anchor, anchor)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss, gradients = compute(real, fake, anchor, anchor)
    peak = torch.cuda.max_memory_allocated() - before
    outputs = 2 * real.numel() * 4
    assert peak < outputs + (1 << 20), f"{peak} bytes for {outputs} bytes of gradients"
    del loss, gradients
