"""The least Linux release that knows all a program uses: its instructions, helpers and map kinds. Reads the tables' rows only.

What an older release's verifier would have made of the program is another question, which this does not answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from netbpf.abi.helpers import HELPERS
from netbpf.abi.maps import MAP_KINDS
from netbpf.isa.opcodes import (
    BPF_CALL,
    BPF_JMP,
    BPF_PSEUDO_MAP_FD,
    BPF_PSEUDO_MAP_IDX,
    BPF_PSEUDO_MAP_IDX_VALUE,
    BPF_PSEUDO_MAP_VALUE,
    is_ld_imm64,
)
from netbpf.isa.releases import FIRST_RELEASE, insn_since
from netbpf.program import ProgramSpec

_LOADED_AS = {BPF_PSEUDO_MAP_IDX: BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_IDX_VALUE: BPF_PSEUDO_MAP_VALUE}


def needed_release(spec: ProgramSpec) -> str:
    """``"5.12"``: no older release knows every instruction, helper and map kind in the program."""
    return max(_releases(spec), key=_as_numbers, default=FIRST_RELEASE)


def _releases(spec: ProgramSpec) -> Iterator[str]:
    wide = False
    for insn in spec.insns:
        if not wide:
            # a declared map is named by its index here and by its descriptor when loaded
            yield insn_since(insn._replace(src=_LOADED_AS.get(insn.src, insn.src)) if is_ld_imm64(insn.code) else insn)
            if insn.code == BPF_JMP | BPF_CALL and insn.src == 0 and insn.imm in HELPERS:
                yield HELPERS[insn.imm].since
        wide = not wide and is_ld_imm64(insn.code)
    for decl in spec.maps:
        if decl.spec.map_type in MAP_KINDS:
            yield MAP_KINDS[decl.spec.map_type].since


def _as_numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))
