"""Random programs of map operations and helper calls in assembly, for scripts/engine_fuzz.py: every map kind and helper that the
native engine compiles, on keys few enough to meet again. Each result is folded into R0."""

from __future__ import annotations

import random

KEYED = (
    "hash key={k} value={v} entries={n}", "hash key={k} value={v} entries={n} flags=1",
    "hash key={k} value={v} entries={n} flags=64",
    "percpu_hash key={k} value={v} entries={n}", "lru_hash key={k} value={v} entries={n}",
    "lru_hash key={k} value={v} entries={n} flags=2", "lru_percpu_hash key={k} value={v} entries={n}",
    "array key=4 value={v} entries={n}", "percpu_array key=4 value={v} entries={n}",
    "lpm_trie key=8 value={v} entries={n} flags=1",
)  # fmt: skip
PUSHED = ("queue value={v} entries={n}", "stack value={v} entries={n}", "bloom_filter value={v} entries={n}")
KEY_AT, VALUE_AT = -64, -128
FOLD = "    r9 *= 31\n    r9 += r0\n"


class Writer:
    """A program being written: R6 the context, R8 a byte of the packet, R9 what was found so far."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.maps: list[tuple[str, str]] = []  # kind, declaration
        self.lines: list[str] = []
        self.labels = 0

    def put(self, text: str) -> None:
        self.lines += [line.strip() for line in text.strip().splitlines()]

    def label(self) -> str:
        self.labels += 1
        return f"l{self.labels}"

    def declare(self) -> None:
        rng = self.rng
        for _ in range(rng.choice((1, 1, 2, 3))):
            form = rng.choice((*KEYED, *KEYED, *PUSHED, "ringbuf entries=4096", "perf_event_array key=4 value=4 entries=2"))
            sizes = {
                "k": rng.choice((1, 4, 4, 5, 8, 12, 16)),
                "v": rng.choice((1, 4, 8, 8, 12, 16, 24)),
                "n": rng.choice((1, 2, 5, 9, 17)),
            }
            self.maps.append((form.split()[0], form.format(**sizes)))

    def text(self) -> str:
        head = [f".map m{i} {declaration}" for i, (_, declaration) in enumerate(self.maps)]
        return "\n".join([*head, *self.lines, ""])


def _begin(w: Writer) -> None:
    w.put(f"""
        r6 = r1
        r9 = 0
        r7 = *(u32 *)(r6 + 0)
        r1 = r6
        r2 = {w.rng.choice((0, 6, 12, 14, 20, 100))}
        r3 = r10
        r3 += -192
        r4 = 8
        call bpf_skb_load_bytes
        r8 = *(u8 *)(r10 - 192)
        r7 ^= r8
    """)
    for at in range(VALUE_AT, VALUE_AT + 32, 8):
        w.put(f"*(u64 *)(r10 {at}) = r7".replace("-", "- "))
    for at in range(KEY_AT, KEY_AT + 32, 8):
        w.put(f"*(u64 *)(r10 {at}) = 0".replace("-", "- "))


def _key(w: Writer, kind: str) -> None:
    """A key of few values at KEY_AT."""
    w.put(f"""
        r1 = r8
        r1 &= {w.rng.choice((1, 3, 7, 15))}
        r1 += {w.rng.choice((0, 0, 0, 1, 2))}
    """)
    if kind == "lpm_trie":
        w.put(f"r2 = r1\nr2 *= {w.rng.choice((1, 4, 8))}\n*(u32 *)(r10 - {-KEY_AT}) = r2\n*(u8 *)(r10 - {-KEY_AT - 4}) = r1")
    else:
        w.put(f"*(u8 *)(r10 - {-KEY_AT}) = r1")


def _arguments(w: Writer, index: int) -> None:
    w.put(f"r1 = map[m{index}]\nr2 = r10\nr2 += {KEY_AT}\nr3 = r10\nr3 += {VALUE_AT}")


def _keyed(w: Writer, index: int, kind: str, size: int) -> None:
    _key(w, kind)
    _arguments(w, index)
    what = w.rng.choice(("lookup", "lookup", "update", "update", "delete", "percpu"))
    if what == "update":
        w.put(f"r4 = {w.rng.choice((0, 0, 0, 1, 2, 3))}\ncall bpf_map_update_elem\n{FOLD}")
    elif what == "delete":
        w.put(f"call bpf_map_delete_elem\n{FOLD}")
    else:
        percpu = what == "percpu" and "percpu" in kind
        out = w.label()
        w.put(f"r3 = {w.rng.choice((0, 0, 1))}\ncall bpf_map_lookup_percpu_elem" if percpu else "call bpf_map_lookup_elem")
        w.put(f"if r0 == 0 goto {out}")
        if size >= 8 and w.rng.random() < 0.6:
            w.put("r1 = *(u64 *)(r0 + 0)\nr9 += r1\nr1 = 3")
            w.put(w.rng.choice(("lock *(u64 *)(r0 + 0) += r1", "*(u64 *)(r0 + 0) = r9", "lock *(u64 *)(r0 + 0) ^= r9")))
        else:
            w.put("r1 = *(u8 *)(r0 + 0)\nr9 += r1\n*(u8 *)(r0 + 0) = r9")
        w.put(f"r9 += 1\n{out}:")


def _pushed(w: Writer, index: int, kind: str) -> None:
    what = w.rng.choice(("push", "push", "peek", "peek" if kind == "bloom_filter" else "pop"))
    w.put(f"*(u64 *)(r10 - {-VALUE_AT}) = r8")
    w.put(f"r1 = map[m{index}]\nr2 = r10\nr2 += {VALUE_AT}")
    if what == "push":
        w.put(f"r3 = {w.rng.choice((0, 0, 2, 1))}")
    w.put(f"call bpf_map_{what}_elem\n{FOLD}\nr0 = *(u8 *)(r10 - {-VALUE_AT})\n{FOLD}")


def _ring(w: Writer, index: int) -> None:
    size = w.rng.choice((1, 8, 24, 30))
    if w.rng.random() < 0.4:
        w.put(f"r1 = map[m{index}]\nr2 = r10\nr2 += {VALUE_AT}\nr3 = {size}\nr4 = {w.rng.choice((0, 1, 2, 4))}")
        w.put(f"call bpf_ringbuf_output\n{FOLD}")
    elif w.rng.random() < 0.2:
        w.put(f"r1 = map[m{index}]\nr2 = {w.rng.randrange(5)}\ncall bpf_ringbuf_query\n{FOLD}")
    else:
        out = w.label()
        w.put(
            f"r1 = map[m{index}]\nr2 = {w.rng.choice((8, 16, 200, 1000))}\nr3 = 0\n"
            f"call bpf_ringbuf_reserve\nif r0 == 0 goto {out}"
        )
        w.put(f"*(u64 *)(r0 + 0) = r7\nr1 = r0\nr2 = 0\ncall bpf_ringbuf_{w.rng.choice(('submit', 'submit', 'discard'))}")
        w.put(f"r9 += 3\n{out}:")


def _perf(w: Writer, index: int) -> None:
    flags = w.rng.choice(("0", "1", "0xffffffff", "0x1000000000", "0x6400000000"))
    w.put(f"r1 = r6\nr2 = map[m{index}]\nr3 = {flags}\nr4 = r10\nr4 += {VALUE_AT}\nr5 = {w.rng.choice((1, 8, 21))}")
    w.put(f"call bpf_perf_event_output\n{FOLD}")


def _plain(w: Writer) -> None:
    """A helper without a map."""
    name = w.rng.choice((
        "ktime_get_ns", "ktime_get_boot_ns", "ktime_get_coarse_ns", "jiffies64", "get_prandom_u32", "get_smp_processor_id",
        "get_numa_node_id", "get_socket_cookie", "get_socket_uid", "get_netns_cookie", "skb_load_bytes",
        "skb_load_bytes_relative",
    ))  # fmt: skip
    if name.startswith("skb"):
        w.put(f"r1 = r6\nr2 = {w.rng.choice((0, 9, 14, 60, -1, 70000))}\nr3 = r10\nr3 += -192\nr4 = {w.rng.choice((1, 4, 8))}")
        w.put(f"r5 = {w.rng.choice((0, 1, 1, 2))}\ncall bpf_{name}\n{FOLD}\nr0 = *(u8 *)(r10 - 192)\n{FOLD}")
    else:
        w.put(f"r1 = r6\ncall bpf_{name}\n{FOLD}")


def random_text(rng: random.Random) -> str:
    """A program; most are accepted."""
    w = Writer(rng)
    w.declare()
    _begin(w)
    for _ in range(rng.randrange(2, 9)):
        if rng.random() < 0.25:
            _plain(w)
            continue
        index = rng.randrange(len(w.maps))
        kind, declaration = w.maps[index]
        if kind == "ringbuf":
            _ring(w, index)
        elif kind == "perf_event_array":
            _perf(w, index)
        elif "key=" in declaration:
            _keyed(w, index, kind, int(declaration.partition("value=")[2].split()[0]))
        else:
            _pushed(w, index, kind)
    w.put("r0 = r9\nexit")
    return w.text()
