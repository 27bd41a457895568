"""Programs that look a table up early, for the native engine to split there, and at how many look-ups it can."""

from __future__ import annotations

LOOK_UP = """
    r1 = map[t]
    r2 = r10
    r2 += -8
    call bpf_map_lookup_elem
"""
COUNT = """
    if r0 == 0 goto absent
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
    r1 = *(u64 *)(r0 + 0)
    goto done
absent:
    *(u64 *)(r10 - 24) = 1
    r1 = map[t]
    r2 = r10
    r2 += -8
    r3 = r10
    r3 += -24
    r4 = 0
    call bpf_map_update_elem
    r1 = 0
done:
"""
HEAD = ".map t hash key=8 value=8 entries=70000\n    r6 = r1\n"
PROGRAMS = {
    # the key of few packets that insert and delete it, so that a lot of 32 has all of that
    "one key again and again": HEAD + """
    r0 = *(u8 *)skb[29]
    r7 = r0
    r0 &= 1
    *(u64 *)(r10 - 8) = r0
""" + LOOK_UP + """
    if r0 == 0 goto insert
    r8 = *(u64 *)(r0 + 0)
    if r7 & 2 goto delete
    r8 += 3
    *(u64 *)(r0 + 0) = r8
    r0 = r8
    r0 &= 63
    exit
delete:
    r1 = map[t]
    r2 = r10
    r2 += -8
    call bpf_map_delete_elem
    r0 = 33
    exit
insert:
    *(u64 *)(r10 - 16) = r7
    r1 = map[t]
    r2 = r10
    r2 += -8
    r3 = r10
    r3 += -16
    r4 = 1
    call bpf_map_update_elem
    r0 += 17
    exit
""",
    "look-ups at several places": HEAD + """
    r0 = *(u8 *)skb[29]
    r7 = r0
    r8 = 11
    if r0 & 1 goto odd
    r0 = *(u8 *)skb[33]
    r8 = r0
    r9 = *(u32 *)(r6 + 0)
    *(u64 *)(r10 - 8) = r7
""" + LOOK_UP + """
    r9 += 5
    goto found
odd:
    if r0 & 2 goto neither
    r9 = *(u32 *)(r6 + 16)
    r7 &= 12
    *(u64 *)(r10 - 8) = r7
    *(u64 *)(r10 - 40) = r9
""" + LOOK_UP + """
    r9 = *(u64 *)(r10 - 40)
    goto found
neither:
    r0 = 40
    exit
found:
""" + COUNT + """
    r0 = r9
    r0 += r8
    r0 += r7
    r0 += r1
    r0 &= 63
    exit
""",
    "the context before and behind": HEAD + """
    r7 = *(u32 *)(r6 + 24)
    r8 = *(u32 *)(r6 + 4)
    r9 = *(u32 *)(r6 + 20)
    r2 = *(u32 *)(r6 + 16)
    r2 += r7
    r2 &= 7
    *(u64 *)(r10 - 8) = r2
    r2 = *(u32 *)(r6 + 48)
    *(u64 *)(r10 - 32) = r2
""" + LOOK_UP + """
    *(u32 *)(r6 + 48) = 9
""" + COUNT + """
    r0 = *(u32 *)(r6 + 0)
    r0 += r1
    r1 = *(u64 *)(r10 - 32)
    r0 += r1
    r1 = *(u32 *)(r6 + 40)
    r0 += r1
    r1 = *(u32 *)(r6 + 28)
    r0 += r1
    r0 += r7
    r0 += r8
    r0 += r9
    r7 = r0
    r0 = *(u16 *)skb[12]
    r0 += r7
    r0 &= 63
    exit
""",
    "what packets before left in the context": ".type sched_cls\n" + HEAD + """
    r7 = *(u32 *)(r6 + 8)
    r0 = *(u8 *)skb[29]
    r0 &= 3
    *(u64 *)(r10 - 8) = r0
""" + LOOK_UP + """
    r2 = 5
    *(u32 *)(r6 + 8) = r2
""" + COUNT + """
    r0 = r1
    r0 &= 15
    r7 *= 3
    r0 += r7
    exit
""",
    "what cannot be carried over": HEAD + """
    r9 = r10
    r9 += -64
    r0 = *(u8 *)skb[29]
    *(u64 *)(r10 - 8) = r0
    if r0 & 1 goto kept
    r9 += 8
kept:
    *(u64 *)(r10 - 64) = 5
    *(u64 *)(r10 - 56) = 6
""" + LOOK_UP + COUNT + """
    r0 = *(u64 *)(r9 + 0)
    r0 += r1
    r0 &= 63
    exit
""",
    "a loop first": HEAD + """
    r7 = 0
    r8 = 0
again:
    r0 = *(u8 *)skb[r7 + 26]
    r8 *= 31
    r8 += r0
    r7 += 1
    if r7 < 5 goto again
    r8 &= 7
    *(u64 *)(r10 - 8) = r8
""" + LOOK_UP + COUNT + """
    r0 = r7
    r0 += r8
    r0 += r1
    exit
""",
    "stack that was never written": HEAD + """
    r0 = *(u8 *)skb[29]
    if r0 & 1 goto on
    *(u32 *)(r10 - 28) = 3
on:
    *(u8 *)(r10 - 8) = r0
""" + LOOK_UP + COUNT + """
    r0 = *(u64 *)(r10 - 32)
    r2 = *(u64 *)(r10 - 96)
    r0 >>= 32
    r0 += r2
    r0 += r1
    exit
""",
    "time and numbers first": HEAD + """
    r0 = *(u8 *)skb[29]
    r7 = r0
    if r7 & 1 goto time
    call bpf_get_prandom_u32
    r7 ^= r0
    goto on
time:
    if r7 & 2 goto on
    call bpf_ktime_get_ns
    r7 += r0
on:
    r0 = r7
    r0 &= 3
    *(u64 *)(r10 - 8) = r0
""" + LOOK_UP + COUNT + """
    r0 = r7
    r0 += r1
    r0 &= 63
    exit
""",
}  # fmt: skip

CUTS = {
    "one key again and again": 1,
    "look-ups at several places": 2,
    "the context before and behind": 1,
    "what packets before left in the context": 1,
    "what cannot be carried over": 0,
    "a loop first": 1,
    "stack that was never written": 1,
    "time and numbers first": 1,
}
