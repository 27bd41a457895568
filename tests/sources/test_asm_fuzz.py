"""Whatever text comes, the readers answer with a program or a SourceError with a place: no traceback, no hang."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netbpf.errors import SourceError
from netbpf.sources import conformance, ubpf_asm
from netbpf.sources.asm import format_program, parse

COUNTING = (Path(__file__).parents[2] / "scenarios" / "counting.s").read_text()
WORDS = """
r0 r1 w1 r10 fp r16 = += s>>= s> == != & - * ( ) [ ] { } , : ; # < > . .. ... 0 1 -1 0x10 0b2 1_0 99999999999999999999 9abc ll pc
goto gotol may_goto if lock call callx exit nospec skb map counts idx fd id btf subprog u8 u16 u32 u64 s8 s32 be16 be32 bswap64
void __percpu atomic_fetch_add atomic64_xchg cmpxchg_64 load_acquire store_release addr_space_cast kernel-function# unknown#7
bpf_map_lookup_elem .map .const .type .license .name .flags .insn .btf .func_info .line_info .source_line .section hash array
key= value=4 entries=2 inner( frozen " "a" "\\ hex"00" hex"0 ip"1.2.3.4" mac"0" L1 L1: 12: (bf) /* */ // ~ << >> / % | ^ @ é
""".split() + [" ", "\t", "\0"]

lines = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)
texts = st.lists(st.one_of(lines, st.text(max_size=20), st.sampled_from(COUNTING.split("\n"))), max_size=8).map("\n".join)


def _answers(text: str) -> None:
    try:
        spec = parse(text, "f.s")
    except SourceError as e:
        if e.path != "f.s" or not (e.line >= 1 or "verifier log" in e.message):
            raise
    else:
        assert parse(format_program(spec)) == spec


@settings(max_examples=1500, deadline=None)
@given(texts)
def test_any_text(text: str) -> None:
    _answers(text)


UBPF_WORDS = "mov %r1 %r16 , [ ] + - 4 0x5 lock fetch add32 call local helper L: L exit ldxw ja # --".split()


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(UBPF_WORDS), max_size=12))
def test_any_ubpf_line(words: list[str]) -> None:
    text = " ".join(words)
    for reader in (ubpf_asm.parse, lambda t: conformance.parse(f"-- asm\n{t}\n-- result\n0")):
        with contextlib.suppress(SourceError):
            reader(text)


@pytest.mark.parametrize("seed", range(300))
def test_mutated_program(seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(COUNTING.encode())
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(128)
            case 1:
                del data[at : at + rng.randrange(1, 20)]
            case 2:
                data[at:at] = data[rng.randrange(len(data)) :][: rng.randrange(1, 30)]
            case _:
                data[at:at] = rng.choice(WORDS).encode()
    _answers(data.decode("utf-8", "replace"))


LARGE = [
    "(" * 100_000,
    "r0 = " + "-" * 100_000,
    "r0 = " + "1+" * 50_000 + "1",
    "r0 = " + "9" * 100_000,
    ".map m hash " + "inner(hash " * 50_000,
    '"' * 100_001,
    "/*" * 100_000,
    "\n" * 200_000,
    "a:" * 50_000,
    ".const A = 1 << 63\n" + ".const A = A * A\n" * 10,
]


@pytest.mark.parametrize("text", LARGE, ids=lambda t: t[:16])
def test_large_or_deep_text_is_answered(text: str) -> None:
    _answers(text)
