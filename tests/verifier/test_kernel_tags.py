"""Functions whose BTF says what they take, with and without `arg:` tags: errno and whole log, ours and the running kernel's."""

from __future__ import annotations

import random
import sys
from itertools import product
from pathlib import Path

import pytest
from support.kernel import needs_kernel
from support.tagged_btf import POINTEES, VALUES, TaggedBtf, tagged_btf
from support.verdicts import PRIVILEGES

from netbpf.isa.instruction import Program, encode
from netbpf.sources.asm import parse
from netbpf.verifier.check import verify
from netbpf.verifier.env import LoadRequest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from kernel_oracle import Oracle, load_btf

TAGS = (
    *((), ("nonnull",), ("nullable",), ("untrusted",), ("arena",), ("ctx",), ("unheard-of",)),
    *(("untrusted", "nonnull"), ("arena", "nonnull"), ("nullable", "nonnull"), ("trusted", "nonnull"), ("ctx", "arena")),
)
ARGUMENTS = {
    "frame": "r1 = r10\nr1 += -16\n*(u64 *)(r10 - 16) = 1\n*(u64 *)(r10 - 8) = 1\n",
    "unwritten": "r1 = r10\nr1 += -64\n",
    "context": "",
    "zero": "r1 = 0\n",
    "number": "r1 = *(u32 *)(r1 + 0)\n",
}
BODIES = {
    "nothing": "r0 = 0\nexit",
    "load": "r0 = *(u32 *)(r1 + 0)\nr0 = 0\nexit",
    "load if there": "if r1 == 0 goto o\nr0 = *(u32 *)(r1 + 0)\no: r0 = 0\nexit",
    "store": "*(u32 *)(r1 + 0) = 1\nr0 = 0\nexit",
    "return": "r0 = r1\nexit",
    "move": "r1 += 4\nr0 = *(u8 *)(r1 + 0)\nr0 = 0\nexit",
    "two loads": "r1 = *(u64 *)(r1 + 0)\nr0 = *(u64 *)(r1 + 0)\nr0 = 0\nexit",
}
PROGRAMS = 250


def _program(argument: str, body: str) -> tuple[Program, int]:
    insns = parse(f"r6 = r1\n{ARGUMENTS[argument]}r2 = 3\ncall f\nr0 = 0\nexit\nf: {BODIES[body]}").insns
    return insns, next(i + insn.imm + 1 for i, insn in enumerate(insns) if (insn.code, insn.src) == (0x85, 1))


class TestKernel:
    pytestmark = needs_kernel

    @pytest.mark.parametrize("privilege", ["priv", "capbpf"])
    def test_same_errno_and_log(self, privilege: str) -> None:
        kinds = [*(f"*{kind}" for kind in POINTEES), *VALUES]
        every = list(product((True, True, False), kinds, TAGS, ARGUMENTS, BODIES))
        chosen = random.Random(f"tags {privilege}").sample(every, PROGRAMS)
        made: dict[tuple[bool, str, tuple[str, ...]], tuple[TaggedBtf, int]] = {}
        for is_global, kind, tags, *_ in chosen:
            btf = tagged_btf(kind, tags, is_global)
            made[is_global, kind, tags] = btf, load_btf(btf.blob)
        accepted = 0
        with Oracle([privilege]) as oracle:
            for is_global, kind, tags, argument, body in chosen:
                (btf, fd), (insns, start) = made[is_global, kind, tags], _program(argument, body)
                funcs = ((0, btf.main), (start, btf.function))
                errno, log = oracle.ask(privilege, encode(insns), extra=(fd, funcs, ()))
                request = LoadRequest(insns, log_level=2, privileges=PRIVILEGES[privilege], btf=btf.blob, func_info=funcs)
                mine = verify(request)
                assert (mine.errno, mine.log) == (errno, log), (is_global, kind, tags, argument, body)
                accepted += not errno
        assert accepted > 20


@pytest.mark.parametrize("argument", list(ARGUMENTS))
def test_an_untrusted_load_gives_zero_where_nothing_lies(argument: str) -> None:
    """The kernel's fault handler sets the register to zero; native code could not, and says so."""
    from netbpf.engine.base import UnsupportedProgram
    from netbpf.env import SteppedEnv
    from netbpf.host.sim.host import SimHost

    btf = tagged_btf("*long", ["untrusted"])
    insns = parse(f"r6 = r1\n{ARGUMENTS[argument]}r2 = 3\ncall f\nexit\nf: r0 = *(u64 *)(r1 + 0)\nexit").insns
    start = len(insns) - 2
    for engine in ("interp", "native"):
        with SimHost(env=SteppedEnv(1), engine=engine).process() as process:
            rows = {"btf_fd": process.btf_load(btf.blob), "func_info": [(0, btf.main), (start, btf.function)]}
            if engine == "native":
                with pytest.raises(UnsupportedProgram, match=f"no code for insn {start} "):
                    process.prog_test_run(process.prog_load(insns, **rows), bytes(64))
            else:
                assert process.prog_test_run(process.prog_load(insns, **rows), bytes(64)).retval == (argument == "frame")
