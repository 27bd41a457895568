"""Programs made to try the walk itself, asked of the running kernel under three privileges: errno and the whole log."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from support.kernel import needs_kernel
from support.verdicts import PRIVILEGES

from netbpf.isa.instruction import Instruction as I
from netbpf.isa.instruction import encode
from netbpf.sources.asm import parse
from netbpf.verifier.check import verify
from netbpf.verifier.env import LoadRequest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from kernel_oracle import Oracle

pytestmark = needs_kernel

LONG = 5000
RANDOM = "call bpf_get_prandom_u32\n"
END = "r0 = 0\nexit"
SUM = "r0 += r7\nr0 += r8\nif r9 == 0 goto +0\n"  # keeps r7, r8 and r9 live


def _linked(setup: str, test: str) -> str:
    """Scalars copied from one another, then one of them compared; r9 differs on the two ways, so that both are walked."""
    return f"r9 = 0\n{RANDOM}r0 &= 65535\nr7 = r0\nr8 = r0\n{setup}\nif {test} goto +1\nr9 = r10\n{SUM}{END}"


def _chain(depths: list[int]) -> tuple[I, ...]:
    insns: list[I] = []
    for i, depth in enumerate(depths):
        insns.append(I(0x7A, 10, 0, -depth))
        if i + 1 < len(depths):
            insns.append(I(0x85, 0, 1, 0, 2))
        insns += [I(0xB7), I(0x95)]
    return tuple(insns)


def _joined(first: str, second: str) -> str:
    """Two ways to set r6 and r7, joined where both are precise."""
    setup = f"{RANDOM}r0 &= 255\nr6 = r0\n{RANDOM}r0 &= 255\nr7 = r0\n{RANDOM}r8 = r0\nr0 = 0\n"
    use = "r1 = r10\nr1 += r6\nr1 = r10\nr1 += r7\nr0 = 0\nr0 += r6\nr0 += r7\n"
    return f"{setup}if r8 == 0 goto b\n{first}goto j\nb: {second}j: {use}{END}"


WIDE = f"{RANDOM}r6 = r0\nr6 &= 4095\n{RANDOM}r7 = r0\nr7 &= 4095\nr0 = 0\n"
WIDE_LINKED = f"{RANDOM}r6 = r0\nr6 &= 4095\nr7 = r6\nr0 = 0\n"


# what ends a link, and with it the constant that stood between: it is no part of the number
UNLINKED = {
    "big-endian": "r9 = be16 r9",
    "little-endian": "r9 = le16 r9",
    "all swapped": "r9 = bswap64 r9",
    "narrow spill": "*(u32 *)(r10 - 8) = r9\nr5 = *(u32 *)(r10 - 8)",
    "narrower spill": "*(u16 *)(r10 - 8) = r9\nr5 = *(u16 *)(r10 - 8)",
    "narrow fill": "*(u64 *)(r10 - 8) = r9\nr5 = *(u32 *)(r10 - 8)",
    "negated": "r9 = -r9",
    "sign extended": "r5 = (s8)r9",
    "low half": "w5 = w9",
    "too many links": "r3 = r4\nr3 += 100\nif r3 <= r9 goto +1\nr1 = 1",
}


def _apart(text: str, used: str) -> str:
    """r9 is a constant from r4 and r7; ``text`` unlinks it; then it is added to the frame pointer."""
    setup = f"{RANDOM}r4 = r0\nr7 = r4\nr9 = r4\nr9 += 2147483647\n"
    return f"{setup}{text}\nr2 = r10\nr2 += -64\nr2 += {used}\nr0 = r7\nr0 += r4\n{END}"


def _branch(i: int) -> str:
    reg, off = 6 + i % 3, 8 * (i + 1)
    return f"{RANDOM}r{reg} = r0\nif r{reg} > {i} goto +1\nr9 = {i}\n*(u64 *)(r10 - {off}) = r{reg}\n"


PROGRAMS: dict[str, str | tuple[I, ...]] = {
    "loop over a slot": (
        f"*(u64 *)(r10 - 8) = 0\n*(u64 *)(r10 - 16) = 1\n{RANDOM}l: r1 = *(u64 *)(r10 - 8)\nr1 += 1\n*(u64 *)(r10 - 8) = r1\n"
        f"if r1 < 5 goto l\nif r0 == 3 goto +1\nr2 = *(u64 *)(r10 - 16)\n{END}"
    ),
    "counting": f"r1 = 0\nl: r1 += 1\nif r1 < 8 goto l\n{END}",
    "nested": f"r8 = 0\nr6 = 0\na: r7 = 0\nb: {RANDOM}r8 += r0\nr7 += 1\nif r7 < 3 goto b\nr6 += 1\nif r6 < 4 goto a\n{END}",
    "infinite": f"l: {RANDOM}if r0 == 5 goto +1\ngoto l\n{END}",
    "branches": "".join(_branch(i) for i in range(5)) + f"r1 = *(u64 *)(r10 - 16)\n{END}",
    "may_goto": f"r6 = 0\nl: may_goto out\nr6 += 1\nr6 &= 255\ngoto l\nout: {END}",
    "may_goto with a way out": (
        f"{RANDOM}r6 = r0\nl: may_goto a\n{RANDOM}if r0 == 7 goto b\nr6 += 1\ngoto l\na: if r6 > 7 goto b\nr0 = 4\nb: {END}"
    ),
    "callee on the caller's stack": (
        f"*(u64 *)(r10 - 8) = 5\n{RANDOM}r6 = r0\nr1 = r10\nr1 += -8\ncall f\nr2 = *(u64 *)(r10 - 8)\n"
        "if r6 == 0 goto +1\nr2 += 1\nr0 = r2\nr0 &= 1\nexit\n"
        f"f: r0 = *(u64 *)(r1 + 0)\nr0 += 1\n*(u64 *)(r1 + 0) = r0\n*(u64 *)(r10 - 16) = r6\n{END}"
    ),
    "calls in a loop": (
        "r6 = 0\nl: *(u64 *)(r10 - 8) = r6\nr1 = r10\nr1 += -8\ncall f\nr6 += 1\nif r6 < 3 goto l\nr0 = *(u64 *)(r10 - 8)\n"
        f"{END}\nf: r2 = *(u64 *)(r1 + 0)\nr2 += 1\n*(u64 *)(r1 + 0) = r2\n*(u64 *)(r10 - 8) = r1\nr1 = *(u64 *)(r10 - 8)\n"
        "call g\nexit\ng: r2 = *(u64 *)(r1 + 0)\nif r2 > 2 goto +1\n*(u64 *)(r1 + 0) = r2\nr0 = r2\nexit"
    ),
    "returned stack pointer": f"r1 = r10\ncall f\n{END}\nf: r0 = r10\nexit",
    "endless call": f"call f\n{END}\nf: call f\nexit",
    "links: base compared": _linked("r7 += 1\nr8 += 5", "r0 > 100"),
    "links: moved one compared": _linked("r7 += 1\nr8 += 5", "r7 > 100"),
    "links: moved down": _linked("r7 -= 1", "r0 > 100"),
    "links: 32 bits": _linked("w7 += 1", "w0 > 100"),
    "dead links are not kept": f"{RANDOM}r7 = r0\nr7 += 1\nif r7 > 100 goto +1\nr8 = 0\n{END}",
    "join: apart, linked": _joined(WIDE, "r7 = r6\n"),
    "join: apart, linked at a distance": _joined(WIDE, "r7 = r6\nr7 += 1\n"),
    "join: linked, apart": _joined(WIDE_LINKED, "r8 = 1\n"),
    "join: linked, linked": _joined(WIDE_LINKED, "r7 = r6\n"),
    "join: distances": _joined(WIDE_LINKED + "r7 += 1\n", "r7 = r6\nr7 += 2\n"),
    "chain that fits": _chain([64, 128, 256]),
    "chain that does not": _chain([256, 128, 144]),
    "chain of eight": _chain([8] * 8),
    "chain of nine": _chain([8] * 9),
    "kernel function 0, dead": (I(0xB7), I(0x15, 0, 0, 1), I(0x85, 0, 2), I(0x95)),
    "kernel function 0": (I(0xB7), I(0x85, 0, 2), I(0x95)),
    "kernel function of a module": (I(0xB7), I(0x85, 0, 2, 3, 7), I(0x95)),
    "packet load in a function": f"r6 = r1\ncall f\n{END}\nf: r6 = r1\nr0 = *(u8 *)skb[0]\nexit",
    "dead function": f"r5 = 0\nif r5 == 0 goto +1\ncall f\n{END}\nf: *(u64 *)(r10 - 64) = 1\n{END}",
    "may_goto takes stack": f"l: may_goto out\nr1 = 0\ngoto l\nout: *(u64 *)(r10 - 8) = 1\n{END}",
    "jump past all numbers": (I(0xB7), I(0x06, 0, 0, 0, 0x7FFFFFFF), I(0x95)),
    **{f"no longer linked: {name}": _apart(text, "r5" if "r5" in text else "r9") for name, text in UNLINKED.items()},
    "all precise": (
        f"r6 = r1\nr9 = 3\nl: r0 = *(u8 *)skb[0]\nr7 = r0\nr9 += 1\nif r9 < 12 goto l\nr7 &= 7\nr1 = r10\nr1 += r7\n{END}"
    ),
}


def _masked(log: str) -> str:
    return re.sub(r"verification time \d+", "verification time N", log)


@pytest.mark.parametrize("flags", [0, 8], ids=["", "state freq"])
@pytest.mark.parametrize("privilege", list(PRIVILEGES))
def test_same_errno_and_log(privilege: str, flags: int) -> None:
    level = 6
    with Oracle([privilege]) as oracle:
        for name, program in PROGRAMS.items():
            insns = parse(program).insns if isinstance(program, str) else program
            walked = re.search(r"processed (\d+) insns", oracle.ask(privilege, encode(insns), 1, flags, 4)[1])
            if walked is not None and int(walked[1]) > LONG:
                continue  # mispredicted rounds of a loop can be endless
            k_errno, k_log = oracle.ask(privilege, encode(insns), 1, flags, level)
            request = LoadRequest(insns, log_level=level, prog_flags=flags, privileges=PRIVILEGES[privilege])
            mine = verify(request)
            assert (mine.errno, _masked(mine.log)) == (k_errno, _masked(k_log)), name


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million instructions, and 8192 waiting paths."""
    endless = parse(f"r6 = 0\nl: {RANDOM}r6 += 1\nif r0 == 5 goto +1\ngoto l\n{END}").insns
    long = parse(f"r1 = 0\nl: r1 += 1\nif r1 < 600000 goto l\n{END}").insns
    with Oracle(["priv"]) as oracle:
        k_errno, k_log = oracle.ask("priv", encode(endless), 1, 0, 4)
        mine = verify(LoadRequest(endless, log_level=4))
        assert (mine.errno, mine.log.split("\n")[0]) == (k_errno, k_log.split("\n")[0])
        k_errno, k_log = oracle.ask("priv", encode(long), 1, 0, 4)
    monkeypatch.setattr("netbpf.verifier.check.BPF_COMPLEXITY_LIMIT_INSNS", 10_000)
    mine = verify(LoadRequest(long, log_level=4))
    assert (mine.errno, mine.log.split("\n")[0].replace("10001", "1000001")) == (k_errno, k_log.split("\n")[0])
