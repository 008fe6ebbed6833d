"""Release and acquire: the last block to take a ticket may read what the others wrote, and nobody else may."""

from __future__ import annotations

import numpy as np
import pytest

from tools.ptxsim.simulator import KernelFault, Memory, Module
from tools.ptxsim.simulator.ordering import Ordering

pytestmark = pytest.mark.emulated

BLOCKS, THREADS = 5, 64

# Every block writes 64 partial sums, takes a ticket, and the last one adds up all of them.
LAST_BLOCK = """
.version 8.0
.target sm_90
.address_size 64
.visible .entry last_block(.param .u64 partials, .param .u64 ticket, .param .u64 total)
{
  .reg .pred %p<4>;
  .reg .b32 %r<16>;
  .reg .f32 %f<4>;
  .reg .b64 %rd<16>;
  .shared .align 4 .b32 old;
  ld.param.u64 %rd1, [partials];
  ld.param.u64 %rd2, [ticket];
  ld.param.u64 %rd3, [total];
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %nctaid.x;
  mad.lo.s32 %r4, %r2, 64, %r1;
  mul.wide.s32 %rd4, %r4, 4;
  add.s64 %rd5, %rd1, %rd4;
  cvt.rn.f32.s32 %f1, %r4;
  st.global.f32 [%rd5], %f1;
  bar.sync 0;
  setp.ne.s32 %p1, %r1, 0;
  @%p1 bra WAIT;
  {before}
  atom.global{sem}.add.u32 %r5, [%rd2], 1;
  {after}
  st.shared.u32 [old], %r5;
WAIT:
  bar.sync 0;
  ld.shared.u32 %r6, [old];
  sub.s32 %r7, %r3, 1;
  setp.ne.s32 %p2, %r6, %r7;
  @%p2 bra DONE;
  mov.f32 %f2, 0f00000000;
  mov.u32 %r8, 0;
LOOP:
  mad.lo.s32 %r9, %r8, 64, %r1;
  mul.wide.s32 %rd6, %r9, 4;
  add.s64 %rd7, %rd1, %rd6;
  ld.global{cache}.f32 %f3, [%rd7];
  add.f32 %f2, %f2, %f3;
  add.s32 %r8, %r8, 1;
  setp.lt.s32 %p3, %r8, %r3;
  @%p3 bra LOOP;
  mul.wide.s32 %rd8, %r1, 4;
  add.s64 %rd9, %rd3, %rd8;
  st.global.f32 [%rd9], %f2;
  mov.u32 %r10, 0;
  @%p1 bra DONE;
  {reset}
DONE:
  ret;
}
"""
RESET = "st.global.u32 [%rd2], %r10;"
SCHEDULES = ("lockstep", "warps", "warps_reversed")


def run(
    sem: str = ".acq_rel.gpu",
    *,
    before: str = "",
    after: str = "",
    cache: str = "",
    reset: str = RESET,
    schedule: str = "lockstep",
    remove: str = "",
    chunk_threads: int = 1 << 16,
) -> None:
    text = LAST_BLOCK
    for name, value in {
        "{sem}": sem,
        "{before}": before,
        "{after}": after,
        "{cache}": cache,
        "{reset}": reset,
    }.items():
        text = text.replace(name, value)
    text = text.replace(remove, "", 1) if remove else text
    memory = Memory()
    partials = memory.empty(BLOCKS * THREADS, np.float32, "partials")
    ticket = memory.put(np.zeros(1, np.int32), "ticket")
    total = memory.empty(THREADS, np.float32, "total")
    Module(text).launch(
        "last_block",
        BLOCKS,
        THREADS,
        [partials, ticket, total],
        memory,
        schedule=schedule,
        chunk_threads=chunk_threads,
    )
    expected = np.arange(BLOCKS * THREADS, dtype=np.float32).reshape(BLOCKS, THREADS).sum(0)
    np.testing.assert_array_equal(total.get(), expected)
    assert ticket.get()[0] == 0


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("chunk_threads", [THREADS, 1 << 16])
def test_acquire_release_orders_the_last_block(schedule: str, chunk_threads: int) -> None:
    run(schedule=schedule, chunk_threads=chunk_threads)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("fence", ["fence.acq_rel.gpu;", "fence.sc.sys;", "membar.gl;"])
def test_fences_around_a_relaxed_atomic_order_the_last_block(schedule: str, fence: str) -> None:
    run("", before=fence, after=fence, schedule=schedule)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    "broken",
    [
        {"sem": ".relaxed.gpu"},
        {"sem": ""},
        {"sem": ".release.gpu"},
        {"sem": ".acquire.gpu"},
        {"sem": "", "before": "membar.gl;"},
        {"sem": "", "after": "membar.gl;"},
        {"sem": "", "before": "membar.cta;", "after": "membar.gl;"},
        {"remove": "bar.sync 0;"},
    ],
    ids=str,
)
def test_missing_order_is_a_race(broken: dict[str, str], schedule: str) -> None:
    with pytest.raises(KernelFault, match=r"global-memory race.*'partials'"):
        run(schedule=schedule, **broken)  # type: ignore[arg-type]


def test_a_stale_cache_is_reported() -> None:
    with pytest.raises(KernelFault, match="non-coherent load of memory that this launch writes"):
        run(cache=".nc")


def test_resetting_the_ticket_before_the_others_came_is_a_race() -> None:
    early = LAST_BLOCK.replace("setp.ne.s32 %p2, %r6, %r7", "setp.ne.s32 %p2, %r6, 0")
    memory = Memory()
    buffers = [
        memory.put(np.zeros(BLOCKS * THREADS, np.float32), "partials"),
        memory.put(np.zeros(1, np.int32), "ticket"),
        memory.empty(THREADS, np.float32, "total"),
    ]
    for name in ("before", "after", "cache"):
        early = early.replace(f"{{{name}}}", "")
    early = early.replace("{sem}", ".acq_rel.gpu").replace("{reset}", RESET)
    # The first block reads no partial sums: what is left is its reset, against the others' tickets.
    early = early.replace("ld.global.f32 %f3, [%rd7];", "mov.f32 %f3, 0f00000000;")
    with pytest.raises(KernelFault, match=r"global-memory race.*'ticket'"):
        Module(early).launch("last_block", BLOCKS, THREADS, buffers, memory)


@pytest.mark.parametrize("chunk_threads", [THREADS, 1 << 16])
def test_an_atomic_of_block_scope_races_with_other_blocks(chunk_threads: int) -> None:
    with pytest.raises(KernelFault, match=r"global-memory race \(atomic.*'ticket'"):
        run(".acq_rel.cta", chunk_threads=chunk_threads)


def test_what_was_acquired_is_released_with_the_rest() -> None:
    """Thread 0 of block 0 to block 1 by one word, from there to block 2 by another, with no barrier."""
    order, first, second = Ordering(THREADS), range(0, 1), range(8, 9)
    written = order.tick()
    order.atomic(0, first, acquire=False, release=True)
    order.atomic(THREADS, first, acquire=True, release=False)
    order.atomic(THREADS, second, acquire=False, release=True)
    order.atomic(2 * THREADS, second, acquire=True, release=False)
    assert order.visible(2 * THREADS, 0, written)
    assert not order.visible(2 * THREADS + 1, 0, written)  # its block has met at no barrier since
    order.barrier(2)
    assert order.visible(2 * THREADS + 1, 0, written)
    assert not order.visible(2 * THREADS, 0, order.tick())


def test_a_release_store_and_an_acquire_load_order_too() -> None:
    order, word = Ordering(THREADS), range(3, 4)
    written = order.tick()
    order.store(0, word)
    later = order.tick()
    order.load(THREADS, 3)
    assert order.visible(THREADS, 0, written)
    assert not order.visible(THREADS, 0, later)
    assert not order.visible(
        THREADS, 1, written
    )  # another thread of block 0, with no barrier before
