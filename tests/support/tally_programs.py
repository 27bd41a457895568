"""Programs that do something to a value if a look-up found it, in assembly: for the native engine to do without a branch."""

from __future__ import annotations

import random

KINDS = ("hash", "hash", "array", "percpu_hash", "percpu_array", "lru_hash")
ENTRIES = (1, 4, 8, 60)


def tally(kind: str, entries: int, value_size: int, done: str, behind: str) -> str:
    """A look-up by the low bits of a byte, keys of a table being put in by some of the packets, and what is ``done`` to a value.
    R6 is the context, R7 to R9 are numbers; ``behind``: what becomes the verdict."""
    put_in = "" if "array" in kind else """
    r0 = *(u8 *)skb[30]
    if r0 & 0x18 goto look
    *(u64 *)(r10 - 40) = 3
    *(u64 *)(r10 - 32) = 2
    *(u64 *)(r10 - 24) = 1
    r1 = map[t]
    r2 = r10
    r2 += -8
    r3 = r10
    r3 += -40
    r4 = 0
    call bpf_map_update_elem
look:"""
    return f""".map t {kind} key=4 value={value_size} entries={entries}
    r6 = r1
    r0 = *(u8 *)skb[29]
    r7 = r0
    r7 &= 63
    r8 = r7
    r8 *= 5
    r9 = *(u32 *)(r6 + 0)
    *(u64 *)(r10 - 16) = r9
    *(u32 *)(r10 - 8) = r7
{put_in}
    r1 = map[t]
    r2 = r10
    r2 += -8
    call bpf_map_lookup_elem
    if r0 == 0 goto done
{done}
done:
{behind}
    exit
"""


def random_tally(rng: random.Random) -> str:
    value_size = rng.choice((8, 16, 24))
    lines = [line for _ in range(rng.randrange(1, 5)) for line in _something(rng, 8 * rng.randrange(value_size // 8))]
    behind = "    r0 = r7\n    r0 += r8\n    r0 ^= r9\n    r0 &= 127"
    if rng.random() < 0.4:
        lines.append(f"r0 = {rng.randrange(64)}")
        behind = "    r0 += r7\n    r0 ^= r9"
    return tally(rng.choice(KINDS), rng.choice(ENTRIES), value_size, "\n".join("    " + line for line in lines), behind)


def _something(rng: random.Random, at: int) -> list[str]:
    """A step with the 8 bytes at ``at`` of the value at R0."""
    r = f"r{rng.randrange(7, 10)}"
    return rng.choice((
        [f"r1 = {rng.randrange(9)}", f"lock *(u64 *)(r0 + {at}) += r1"],
        [f"lock *(u32 *)(r0 + {at + 4}) += {r}"],
        [f"r1 = *(u64 *)(r0 + {at})", "r1 *= 3", f"*(u64 *)(r0 + {at}) = r1"],
        [f"*(u8 *)(r0 + {at + 5}) = 7"],
        ["r2 = r0", f"r2 += {at}", f"lock *(u64 *)(r2 + 0) |= {r}"],
        [f"{r} = *(u16 *)(r0 + {at + 2})"],
        ["r3 = *(u32 *)(r6 + 16)", f"{r} += r3"],
        [f"{r} = atomic64_fetch_add((u64 *)(r0 + {at}), {r})"],
        ["r4 = *(u64 *)(r10 - 16)", f"*(u64 *)(r0 + {at}) = r4"],
        ["w5 = 77", f"*(u16 *)(r0 + {at}) = r5"],
        ["r5 = 0x123456789 ll", f"{r} ^= r5"],
    ))
