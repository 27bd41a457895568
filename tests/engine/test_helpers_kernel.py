"""Helper bodies against the running kernel: results, errno and bytes written, on inputs that look for the edges."""

from __future__ import annotations

import random
from collections.abc import Sequence
from struct import pack
from typing import NamedTuple

import pytest
from support.kernel import needs_kernel
from support.kernel_runs import RDONLY_PROG, Both, Code, Refs, array_spec

from netbpf.abi.helpers import FUNC_IDS
from netbpf.engine.interp.printf import BadFormat, Spec, parse_format
from netbpf.errors import ProgramRejected
from netbpf.isa.instruction import Instruction as I  # many of them in a row

pytestmark = needs_kernel

TEXT_BYTES, R0_AT, OUT_AT = 64, 128, 136


def call(name: str) -> I:
    return I(0x85, imm=FUNC_IDS[name])


def mov(dst: int, imm: int) -> I:
    return I(0xB7, dst, imm=imm)


def store_results(refs: Refs, *, out_reg: int | None = None) -> list[I]:
    """R0 to the io map at R0_AT, and a register to OUT_AT."""
    tail = [I(0x7B, 9, out_reg, OUT_AT)] if out_reg is not None else []
    return [*refs.value(9, 0), I(0x7B, 9, 0, R0_AT), *tail, mov(0, 0), I(0x95)]


# --- numbers ----------------------------------------------------------------------------------------------------------
NUMBERS = [
    b"", b"0", b"-0", b"+1", b"12", b"-12", b" 12", b"  \t\n-12x", b"x", b"-", b"--1", b"0x", b"0x1f", b"0X1F", b"0xg", b"-0x10",
    b"010", b"08", b"0778", b"1f", b"abc", b"18446744073709551615", b"18446744073709551616", b"9223372036854775807",
    b"9223372036854775808", b"-9223372036854775808", b"-9223372036854775809", b"0xffffffffffffffff", b"0x10000000000000000",
    b"1777777777777777777777", b"2000000000000000000000", b"1" * 60, b"0" * 62 + b"7", b"0" * 63 + b"7", b" " * 60 + b"123",
    b"12 34", b"\xa012", b"1\x002", b"0x0x1", b"00x1", b"0 1", b"\v\f\r5",
]  # fmt: skip


def number_code(helper: str, size: int, base: int) -> Code:
    def code(refs: Refs) -> Sequence[I]:
        return [
            *refs.value(1, 0), mov(2, size), mov(3, base), I(0xBF, 4, 10), I(0x07, 4, imm=-8), mov(5, -1), I(0x7B, 10, 5, -8),
            call(helper), I(0x79, 8, 10, -8), *store_results(refs, out_reg=8),
        ]  # fmt: skip

    return code


@pytest.mark.parametrize("helper", ["strtol", "strtoul"])
@pytest.mark.parametrize("base", [0, 8, 10, 16, 2, 32, -1])
def test_numbers_are_read_as_the_kernel_reads_them(helper: str, base: int) -> None:
    for size in (1, 2, 3, 21, 64):
        with Both(number_code(helper, size, base), [array_spec(192)]) as both:
            for text in NUMBERS:
                both.write(0, text[:TEXT_BYTES].ljust(192, b"\0"))
                both.run()
                theirs, ours = (value[R0_AT : OUT_AT + 8] for value in both.read(0))
                assert ours == theirs, (text, size, base)


# --- text -------------------------------------------------------------------------------------------------------------
NUMBER_FORMATS = [
    b"", b"plain", b"%%", b"%d", b"%i|%u", b"%x %X", b"%ld %lu %lx", b"%lld %llu %llx %llX", b"%5d|%-5d|%05d|%+d", b"% d|% 5d",
    b"%+5d|%-+5d|%+05d", b"%-05d|", b"%08x|%-8x|% x|%+x", b"%c%c", b"%5c|%-5c|", b"%05c|", b"%ps %pS", b"%20ps|%-20pS|", b"%px",
    b"%20px|%-20px|", b"%020px|%-px|", b"%", b"%5", b"%q", b"%ll", b"%lls", b"%.3d", b"%#x", b"%hd", b"%p4", b"%pI5", b"%pz",
    b"%d%d%d%d%d", b"%\x01", b"\x01", b"\x7f", b"a\xc3", b"\x80\xa0\xff", b"%\xc3", b"\ttab\n", b"%0-5d|",
    b"%10d%%", b"%lc", b"%lp",
    b"%ld%", b"%1d", b"%01d", b"%lll d", b"%12lld|%-12llx|%012llX", b"%d %%", b"%%%d", b"%d%", b"%pxx", b"%px_",
    b"%020ps|", b"%0+ -5d|",
]  # fmt: skip
POINTER_FORMATS = [
    b"%s", b"%10s|", b"%-10s|", b"%010s|", b"%pks", b"%12pks|", b"%pI4", b"%pi4", b"%pI6", b"%pi6", b"%20pI4|", b"%-20pi4|",
    b"%s%%", b"%s|%d", b"%pI4x", b"%pksx",
]  # fmt: skip


def snprintf_code(size: int, args: int, *, is_pointer: bool) -> Code:
    """snprintf(io + 64, size, map 1, four u64 of io, 8 * args); the first is the address of map 2's value if ``is_pointer``."""

    def code(refs: Refs) -> Sequence[I]:
        fill = [insn for i in range(4) for insn in (I(0x79, 7, 6, 8 * i), I(0x7B, 10, 7, -32 + 8 * i))]
        pointer = [*refs.value(7, 2), I(0x7B, 10, 7, -32)] if is_pointer else []
        return [
            *refs.value(6, 0), *fill, *pointer, *refs.value(1, 0), I(0x07, 1, imm=64), mov(2, size), *refs.value(3, 1),
            I(0xBF, 4, 10), I(0x07, 4, imm=-32), mov(5, 8 * args), call("snprintf"), *store_results(refs),
        ]  # fmt: skip

    return code


def is_refused(fmt: bytes, args: int) -> bool:
    try:
        return sum(isinstance(part, Spec) for part in parse_format(fmt)) > args
    except BadFormat:
        return True


def check_text(fmt: bytes, size: int, args: int, *, is_pointer: bool) -> None:
    specs = [array_spec(192), array_spec(32, RDONLY_PROG), array_spec(16)]
    contents = {1: fmt.ljust(32, b"\0"), 2: b"string\0".ljust(16, b"\0")}
    try:
        both = Both(snprintf_code(size, args, is_pointer=is_pointer), specs, contents)
    except ProgramRejected:
        assert is_refused(fmt, args)  # the kernel's verifier judges constant formats, and refuses what snprintf would
        return
    with both:
        for values in ((1, 2, 3, 4), (2**64 - 1, 2**31, 2**63, 65), (0, 0xFFFF_FFFF, 97, 10**18)):
            both.write(0, pack("<4Q", *values).ljust(192, b"\xee"))
            both.run()
            theirs, ours = both.read(0)
            assert ours[64:136] == theirs[64:136], (fmt, size, args, values)


@pytest.mark.parametrize("fmt", NUMBER_FORMATS, ids=repr)
def test_numbers_are_formatted_as_the_kernel_formats_them(fmt: bytes) -> None:
    for size, args in ((60, 4), (60, 1), (60, 0), (4, 2), (1, 1)):
        check_text(fmt, size, args, is_pointer=False)


def test_made_up_formats_are_judged_and_rendered_as_the_kernel_does() -> None:
    """Random pieces of the format language; the seed is fixed so that a failure repeats."""
    rng = random.Random(1)
    pieces = [b"%", b"%", b"l", b"ll", b"d", b"x", b"u", b"X", b"c", b"0", b"-", b"+", b" ", b"9", b"12", b"px", b"p"]
    pieces += [b"a", b".", b"\xa0", b"\xc3"]
    for _ in range(400):
        fmt = b"".join(rng.choice(pieces) for _ in range(rng.randrange(1, 8)))
        if b"%p" not in fmt.replace(b"%px", b"") and b"p" not in fmt.replace(b"px", b""):
            check_text(fmt, 60, 4, is_pointer=False)


@pytest.mark.parametrize("fmt", POINTER_FORMATS, ids=repr)
def test_what_pointers_point_to_is_formatted_as_the_kernel_formats_it(fmt: bytes) -> None:
    for size, args in ((60, 4), (60, 1), (4, 2)):
        check_text(fmt, size, args, is_pointer=True)


def test_strings_are_compared_as_the_kernel_compares_them() -> None:
    for size in (1, 3, 8):

        def code(refs: Refs, size: int = size) -> Sequence[I]:
            return [*refs.value(1, 0), mov(2, size), *refs.value(3, 1), call("strncmp"), *store_results(refs)]

        with Both(code, [array_spec(192), array_spec(16, RDONLY_PROG)], {1: b"ab\xff".ljust(16, b"\0")}) as both:
            for text in (b"", b"a", b"ab", b"abc", b"ab\xff", b"ab\xffx", b"ac", b"aa", b"\xff", b"ab\xfe\x01"):
                both.write(0, text.ljust(192, b"\0"))
                both.run()
                theirs, ours = both.read(0)
                assert ours[R0_AT : R0_AT + 8] == theirs[R0_AT : R0_AT + 8], (text, size)


# --- dynptrs ----------------------------------------------------------------------------------------------------------
class DynptrCase(NamedTuple):
    """Arguments of one chain of dynptr calls."""

    make_size: int
    make_flags: int
    read_off: int
    read_flags: int
    write_off: int
    write_flags: int
    data_off: int


def stack(reg: int, off: int) -> list[I]:
    return [I(0xBF, reg, 10), I(0x07, reg, imm=off)]


def dynptr_code(case: DynptrCase) -> Code:
    """A dynptr over the first 64 bytes of io, made, read, written and looked into; results behind them."""

    def code(refs: Refs) -> Sequence[I]:
        return [
            *refs.value(8, 0), mov(7, 0x77), I(0x7B, 10, 7, -32), I(0x7B, 10, 7, -24),
            I(0xBF, 1, 8), mov(2, case.make_size), mov(3, case.make_flags), *stack(4, -16), call("dynptr_from_mem"),
            I(0x7B, 8, 0, 64),
            *stack(1, -32), mov(2, 8), *stack(3, -16), mov(4, case.read_off), mov(5, case.read_flags), call("dynptr_read"),
            I(0x7B, 8, 0, 72), I(0x79, 7, 10, -32), I(0x7B, 8, 7, 80),
            *stack(1, -16), mov(2, case.write_off), *stack(3, -24), mov(4, 8), mov(5, case.write_flags), call("dynptr_write"),
            I(0x7B, 8, 0, 88),
            *stack(1, -16), mov(2, case.data_off), mov(3, 4), call("dynptr_data"), mov(7, 0), I(0x15, 0, 0, 1), I(0x61, 7, 0, 0),
            I(0x7B, 8, 7, 96), mov(0, 0), I(0x95),
        ]  # fmt: skip

    return code


def test_dynptrs_reach_as_far_as_the_kernels() -> None:
    rng = random.Random(7)
    offsets = [0, 1, 8, 32, 56, 60, 64, 65, -1]
    for _ in range(80):
        case = DynptrCase(
            rng.choice([0, 8, 64, 64, 64]), rng.choice([0, 0, 0, 1]), rng.choice(offsets), rng.choice([0, 0, 1]),
            rng.choice(offsets), rng.choice([0, 0, 1]), rng.choice(offsets),
        )  # fmt: skip
        with Both(dynptr_code(case), [array_spec(192)]) as both:
            both.write(0, bytes(range(64)).ljust(192, b"\xee"))
            both.run()
            theirs, ours = both.read(0)
            assert ours == theirs, case
