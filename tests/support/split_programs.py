"""Random programs that look tables up early, in assembly, for the native engine to split there: what comes before the look-up
reads the packet, the context and the frame, may end, or does what cannot run ahead; what comes behind reads all of it again."""

from __future__ import annotations

import random

TABLES = ("hash", "hash", "percpu_hash", "lru_hash", "lru_percpu_hash")
FIELDS = {
    "len": 0, "pkt_type": 4, "mark": 8, "queue_mapping": 12, "protocol": 16, "vlan_present": 20, "vlan_tci": 24, "vlan_proto": 28,
    "priority": 32, "ingress_ifindex": 36, "ifindex": 40, "cb": 48, "cb[4]": 64, "hash": 68,
}  # fmt: skip
SLOTS = (-24, -32, -40, -48)
KEY_AT, VALUE_AT, SPILL_AT = -16, -72, -80


class Writer:
    """R6 is the context, R7 to R9 are numbers. ``rare``: at how many of a hundred places stands what cannot run ahead."""

    def __init__(self, rng: random.Random, rare: int) -> None:
        self.rng, self.rare = rng, rare
        self.lines: list[str] = []
        self.labels = 0
        self.written: set[int] = set()
        self.tables = [(rng.choice(TABLES), rng.choice((1, 4, 8, 12, 16))) for _ in range(rng.choice((1, 1, 2)))]

    def put(self, text: str) -> None:
        self.lines += text.split("; ")

    def register(self) -> str:
        return f"r{self.rng.randrange(7, 10)}"

    def label(self) -> str:
        self.labels += 1
        return f"l{self.labels}"

    def step(self) -> None:
        """Something small, in any order."""
        rng, r = self.rng, self.register()
        slot = rng.choice(SLOTS)
        if rng.randrange(100) < self.rare:
            self.put(rng.choice((
                "call bpf_ktime_get_ns; r7 ^= r0", "call bpf_get_prandom_u32; r8 ^= r0", f"*(u32 *)(r6 + 48) = {r}",
                "r2 = r10; *(u64 *)(r10 - 88) = r2", "call bpf_get_smp_processor_id; r9 += r0",
            )))  # fmt: skip
            return
        pick = rng.randrange(10)
        if pick < 3:
            at = rng.choice((0, 3, 11, 12, 13, 14, 16, 20, 23, 26, 30, 34, 38, 60, 61))
            size = rng.choice(("u8", "u8", "u16", "u32"))
            self.put(f"r0 = *({size} *)skb[{at}]; {r} {rng.choice(('', '+', '^', '*'))}= r0")
        elif pick < 5:
            self.put(f"{r} = *(u32 *)(r6 + {rng.choice(tuple(FIELDS.values()))})")
        elif pick < 6:
            self.put(f"*(u64 *)(r10 - {-slot}) = {r}")
            self.written.add(slot)
        elif pick < 7 and self.written:
            self.put(f"{r} = *(u64 *)(r10 - {-rng.choice(sorted(self.written))})")
        elif pick < 8:
            size = rng.choice((1, 2, 4, 7, 8))
            self.put(f"r1 = r6; r2 = {rng.choice((0, 10, 14, 26, 58))}; r3 = r10; r3 += {slot}; r4 = {size}")
            self.put(f"call bpf_skb_load_bytes; {r} += r0")
        else:
            other = self.register()
            self.put(f"{r} {rng.choice(('+', '^', '*', '-'))}= {rng.choice((other, str(rng.randrange(1, 99))))}")

    def branch(self) -> None:
        """Some steps, or an end, that only some packets come to."""
        rng, past = self.rng, self.label()
        before = set(self.written)
        self.put(f"if {self.register()} & {rng.choice((1, 2, 4, 8, 3))} goto {past}")
        pick = rng.randrange(4)
        if pick == 0:
            self.put(f"r0 = {rng.randrange(64)}; exit")
        elif pick == 1:
            self.look_up()
        else:
            for _ in range(rng.randrange(1, 4)):
                self.step()
        self.lines.append(f"{past}:")
        self.written &= before

    def key(self, size: int) -> None:
        """One of few keys, from what the packet gave."""
        for at in range(KEY_AT, KEY_AT + 16, 8):
            r = self.register()
            self.put(f"r2 = {r}; r2 &= {self.rng.choice((1, 3, 7))}; *(u64 *)(r10 - {-at}) = r2")
        if self.rng.random() < 0.3:
            self.put(f"r2 = {self.register()}; r2 &= 3; *(u8 *)(r10 - {-KEY_AT - self.rng.randrange(size)}) = r2")

    def at_key(self, number: int) -> None:
        self.put(f"r1 = map[t{number}]; r2 = r10; r2 += {KEY_AT}")

    def look_up(self) -> None:
        rng, absent, done = self.rng, self.label(), self.label()
        number = rng.randrange(len(self.tables))
        self.key(self.tables[number][1])
        self.at_key(number)
        self.put(f"call bpf_map_lookup_elem; if r0 == 0 goto {absent}")
        self.put("r1 = 1; lock *(u64 *)(r0 + 0) += r1; r1 = *(u64 *)(r0 + 0)")
        self.put(f"{self.register()} ^= r1; goto {done}")
        self.lines.append(f"{absent}:")
        if rng.random() < 0.8:
            self.update(number)
        self.lines.append(f"{done}:")

    def update(self, number: int) -> None:
        self.at_key(number)
        self.put(f"*(u64 *)(r10 - {-VALUE_AT}) = {self.register()}; r3 = r10; r3 += {VALUE_AT}; r4 = {self.rng.randrange(3)}")
        self.put("call bpf_map_update_elem; r9 ^= r0")

    def operation(self) -> None:
        """Another operation on a key, maybe the last one."""
        number = self.rng.randrange(len(self.tables))
        if self.rng.random() < 0.5:
            self.key(self.tables[number][1])
        elif KEY_AT not in self.written:
            self.put(f"r2 = 0; *(u64 *)(r10 - {-KEY_AT}) = r2; *(u64 *)(r10 - {-KEY_AT - 8}) = r2")
        if self.rng.random() < 0.5:
            self.at_key(number)
            self.put("call bpf_map_delete_elem; r8 += r0")
        else:
            self.update(number)

    def text(self) -> str:
        rng = self.rng
        self.put("r6 = r1; r7 = 5; r8 = 6; r9 = 7")
        spilled = rng.random() < 0.2
        if spilled:
            self.put(f"*(u64 *)(r10 - {-SPILL_AT}) = r6")
        for _ in range(rng.randrange(2, 9)):
            (self.branch if rng.random() < 0.35 else self.step)()
        if spilled and rng.random() < 0.5:
            self.put(f"r6 = *(u64 *)(r10 - {-SPILL_AT})")
        (self.look_up if rng.random() < 0.85 else self.operation)()
        if spilled:
            self.put(f"r6 = *(u64 *)(r10 - {-SPILL_AT})")
        for _ in range(rng.randrange(1, 8)):
            rng.choice((self.branch, self.step, self.step, self.operation))()
        self.put("r0 = r7; r0 *= 31; r0 += r8; r0 *= 31; r0 += r9")
        for slot in sorted(self.written):
            self.put(f"r1 = *(u64 *)(r10 - {-slot}); r0 *= 31; r0 += r1")
        self.put("r1 = r0; r1 >>= 32; r0 ^= r1; r0 &= 63; exit")
        maps = [f".map t{n} {kind} key={size} value=8 entries=70000" for n, (kind, size) in enumerate(self.tables)]
        return "\n".join([*maps, *self.lines]) + "\n"


def random_split(rng: random.Random) -> str:
    """The program's text."""
    return Writer(rng, rng.choice((0, 0, 5, 20))).text()
