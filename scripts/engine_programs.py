"""Random programs of map operations and helper calls in assembly, for scripts/engine_fuzz.py: every map kind and helper that the
native engine compiles, on keys few enough to meet again; maps of every kind inside others; functions that bpf_for_each_map_elem
calls. Each result is folded into R0."""

from __future__ import annotations

import random
from typing import NamedTuple

KEYED = (
    "hash key={k} value={v} entries={n}", "hash key={k} value={v} entries={n} flags=1",
    "hash key={k} value={v} entries={n} flags=64",
    "percpu_hash key={k} value={v} entries={n}", "lru_hash key={k} value={v} entries={n}",
    "lru_hash key={k} value={v} entries={n} flags=2", "lru_percpu_hash key={k} value={v} entries={n}",
    "array key=4 value={v} entries={n}", "percpu_array key=4 value={v} entries={n}",
    "lpm_trie key=8 value={v} entries={n} flags=1",
)  # fmt: skip
PUSHED = ("queue value={v} entries={n}", "stack value={v} entries={n}", "bloom_filter value={v} entries={n}")
INNER = (
    *KEYED, *PUSHED, "array key=4 value={v} entries={n} flags=0x1000", "array key=4 value={v} entries={n} flags=0x1000",
    "hash key={k} value={v} entries={n}", "ringbuf entries=4096", "ringbuf entries=4096",
)  # fmt: skip
OUTER_KEYS = 3
ENTRIES = (1, 2, 5, 9, 17)
WALKED = frozenset({"hash", "percpu_hash", "lru_hash", "lru_percpu_hash", "array", "percpu_array"})
KEY_AT, VALUE_AT, INNER_AT, CTX_AT = -64, -128, -200, -208
FOLD = "    r9 *= 31\n    r9 += r0\n"


class Target(NamedTuple):
    """What an operation is done to: a map's kind and size of values; ``load``: the text that brings it into R1."""

    kind: str
    has_key: bool
    value_size: int
    load: str


class Writer:
    """A program being written: R6 the context, R8 a byte of the packet, R9 what was found so far."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.maps: list[tuple[str, str]] = []  # kind, declaration
        self.inside: list[str] = []  # declarations of what is in maps of maps
        self.functions: list[str] = []
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
            if rng.random() < 0.35:
                self.maps.append(self.outer(len(self.maps)))
                continue
            form = rng.choice((*KEYED, *KEYED, *PUSHED, "ringbuf entries=4096", "perf_event_array key=4 value=4 entries=2"))
            self.maps.append((form.split()[0], form.format(**self.sizes())))

    def sizes(self) -> dict[str, int]:
        return {
            "k": self.rng.choice((1, 4, 4, 5, 8, 12, 16)),
            "v": self.rng.choice((1, 4, 8, 8, 12, 16, 24)),
            "n": self.rng.choice(ENTRIES),
        }

    def outer(self, number: int) -> tuple[str, str]:
        """A map of maps, one of its entries empty, the others as large as may be."""
        rng, sizes = self.rng, self.sizes()
        form = rng.choice(INNER)
        template = form.format(**sizes)
        if form.startswith("array") and "0x1000" not in form:
            other = template
        else:
            other = form.format(**sizes | {"n": rng.choice(ENTRIES)})
        self.inside += [f".map i{number} {template}", f".map j{number} {other}"]
        kind = rng.choice(("array_of_maps", "hash_of_maps", "hash_of_maps"))
        first, second = rng.sample(range(OUTER_KEYS), 2)
        holds = f"{{\n    {first}: &i{number}\n    {second}: &{rng.choice('ij')}{number}\n}}"
        return template.split()[0], f"{kind} key=4 value=4 entries={OUTER_KEYS} inner({template}) {holds}"

    def target(self, index: int) -> Target:
        """Map ``index``; of a map of maps, one inside it, if there is one."""
        kind, declaration = self.maps[index]
        template = declaration.partition("inner(")[2] or declaration
        size = int(template.partition("value=")[2].split()[0].rstrip(")")) if "value=" in template else 0
        load = f"r1 = map[m{index}]" if template is declaration else f"r1 = *(u64 *)(r10 - {-INNER_AT})"
        return Target(kind, "key=" in template, size, load)

    def end(self) -> None:
        """The end of a program, and behind it the functions that it passed on."""
        self.put("r0 = r9\nexit")
        self.lines += self.functions
        self.functions = []

    def text(self) -> str:
        head = [*self.inside, *(f".map m{i} {declaration}" for i, (_, declaration) in enumerate(self.maps))]
        return "\n".join([*head, *self.lines, ""])


def put_begin(w: Writer) -> None:
    """R6 to R9, and keys and values on the stack."""
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


def _arguments(w: Writer, load: str) -> None:
    w.put(f"{load}\nr2 = r10\nr2 += {KEY_AT}\nr3 = r10\nr3 += {VALUE_AT}")


def _find_inner(w: Writer, index: int, none: str) -> None:
    """The map inside map ``index`` to INNER_AT; go to ``none`` where there is none."""
    w.put(f"""
        r1 = r8
        r1 &= {OUTER_KEYS}
        *(u32 *)(r10 - {-KEY_AT}) = r1
        r1 = map[m{index}]
        r2 = r10
        r2 += {KEY_AT}
        call bpf_map_lookup_elem
        if r0 == 0 goto {none}
        *(u64 *)(r10 - {-INNER_AT}) = r0
    """)


def _keyed(w: Writer, target: Target) -> None:
    kind, size = target.kind, target.value_size
    _key(w, kind)
    _arguments(w, target.load)
    what = w.rng.choice(("lookup", "lookup", "update", "update", "delete", "percpu"))
    if what == "update":
        w.put(f"r4 = {w.rng.choice((0, 0, 0, 0, 1, 2, 3, 4, 5))}\ncall bpf_map_update_elem\n{FOLD}")
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


def _pushed(w: Writer, target: Target) -> None:
    what = w.rng.choice(("push", "push", "peek", "peek" if target.kind == "bloom_filter" else "pop"))
    w.put(f"*(u64 *)(r10 - {-VALUE_AT}) = r8")
    w.put(f"{target.load}\nr2 = r10\nr2 += {VALUE_AT}")
    if what == "push":
        w.put(f"r3 = {w.rng.choice((0, 0, 2, 1))}")
    w.put(f"call bpf_map_{what}_elem\n{FOLD}\nr0 = *(u8 *)(r10 - {-VALUE_AT})\n{FOLD}")


def _ring(w: Writer, load: str) -> None:
    size = w.rng.choice((1, 8, 24, 30))
    if w.rng.random() < 0.4:
        w.put(f"{load}\nr2 = r10\nr2 += {VALUE_AT}\nr3 = {size}\nr4 = {w.rng.choice((0, 1, 2, 4))}")
        w.put(f"call bpf_ringbuf_output\n{FOLD}")
    elif w.rng.random() < 0.2:
        w.put(f"{load}\nr2 = {w.rng.randrange(5)}\ncall bpf_ringbuf_query\n{FOLD}")
    else:
        out = w.label()
        w.put(
            f"{load}\nr2 = {w.rng.choice((8, 16, 200, 1000))}\nr3 = 0\n"
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


def _on_map(w: Writer, index: int) -> None:
    """An operation on a map; on one inside it several, as a program does that has found it."""
    target = w.target(index)
    if target.kind == "perf_event_array":
        _perf(w, index)
    elif "inner(" in w.maps[index][1]:
        none = w.label()
        _find_inner(w, index, none)
        for _ in range(w.rng.randrange(1, 5)):
            _operate(w, target)
        w.put(f"{none}:")
    else:
        _operate(w, target)


def _walk(w: Writer, target: Target) -> None:
    """Call a function on every element; R9 goes through its hands."""
    name = w.label()
    w.functions.append(_visitor(w.rng, name))
    w.put(f"""
        *(u64 *)(r10 - {-CTX_AT}) = r9
        {target.load}
        r2 = subprog[{name}]
        r3 = r10
        r3 += {CTX_AT}
        r4 = {w.rng.choice((0, 0, 0, 0, 0, 1))}
        call bpf_for_each_map_elem
        r9 = *(u64 *)(r10 - {-CTX_AT})
    """)
    w.put(FOLD)


def _visitor(rng: random.Random, name: str) -> str:
    """A function that folds key and value in, and may change or delete this element or another of the map, once."""
    writes = rng.choice(("", "*(u8 *)(r3 + 0) = r9\n"))
    fill = "".join(f"*(u64 *)(r10 - {at}) = 0\n" for at in range(40, 65, 8))
    key = rng.choice(("r2 = r7\n", f"r2 = r9\nr2 &= {rng.choice((3, 7, 15))}\n*(u8 *)(r10 - 64) = r2\nr2 = r10\nr2 += -64\n"))
    operation = rng.choice(
        (
            "",
            f"{fill}r1 = r6\n{key}call bpf_map_delete_elem\nr9 += r0\n",
            f"{fill}*(u64 *)(r10 - 80) = r9\n*(u64 *)(r10 - 88) = r9\n*(u64 *)(r10 - 96) = 7\nr1 = r6\n{key}r3 = r10\nr3 += -96\n"
            "r4 = 0\ncall bpf_map_update_elem\nr9 += r0\n",
        )
    )
    answer = rng.choice(("r0 = 0", "r0 = 0", f"r0 = r9\nr0 >>= {rng.choice((2, 5))}\nr0 &= 1"))
    return (
        f"{name}:\nr6 = r1\nr7 = r2\nr8 = r4\nr9 = *(u64 *)(r8 + 0)\nr9 *= 31\n"
        f"r1 = *(u8 *)(r7 + 0)\nr9 += r1\nr1 = *(u8 *)(r3 + 0)\nr9 += r1\n{writes}{operation}"
        f"r1 = *(u8 *)(r7 + 0)\nr9 += r1\n*(u64 *)(r8 + 0) = r9\n{answer}\nexit"
    )


def _operate(w: Writer, target: Target) -> None:
    if target.kind in WALKED and w.rng.random() < 0.2:
        _walk(w, target)
    elif target.kind == "ringbuf":
        _ring(w, target.load)
    elif target.has_key:
        _keyed(w, target)
    else:
        _pushed(w, target)


def _number(w: Writer) -> None:
    """Text at VALUE_AT, with digits of the packet's choice, as a number."""
    first = w.rng.choice(("-", " ", "0", "7", "x"))
    w.put(f"""
        r1 = r8
        r1 &= 7
        r1 += {w.rng.choice((48, 52, 95))}
        *(u8 *)(r10 - {-VALUE_AT}) = {ord(first)}
        *(u8 *)(r10 - {-VALUE_AT - 1}) = r1
        *(u8 *)(r10 - {-VALUE_AT - 2}) = {w.rng.choice((48, 57, 102, 120, 10))}
        r1 = r10
        r1 += {VALUE_AT}
        r2 = {w.rng.choice((1, 2, 8, 32))}
        r3 = {w.rng.choice((0, 0, 8, 10, 16))}
        r4 = r10
        r4 += -192
        call bpf_{w.rng.choice(("strtol", "strtoul"))}
    """)
    w.put(f"{FOLD}\nr0 = *(u64 *)(r10 - 192)\n{FOLD}")


def put_operation(w: Writer) -> None:
    """A helper, or something done to one of the maps."""
    if w.rng.random() < 0.25:
        w.rng.choice((_plain, _plain, _plain, _number))(w)
    else:
        _on_map(w, w.rng.randrange(len(w.maps)))


def random_text(rng: random.Random) -> str:
    """A program; most are accepted."""
    w = Writer(rng)
    w.declare()
    put_begin(w)
    for _ in range(rng.randrange(2, 9)):
        put_operation(w)
    w.end()
    return w.text()
