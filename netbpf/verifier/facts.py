"""What the walk proves of single instructions, kept for the engines: which kind of pointer, which map, where on the stack.

Only real paths count: what a mispredicting processor alone would do is no fact of a run. Register types and the map behind a
pointer are compared when states are pruned, so a fact that holds on the walked paths holds on the pruned ones too.
"""

from __future__ import annotations

from typing import Final

from netbpf.ints import s32
from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction
from netbpf.maps.inner import template_shape
from netbpf.program import InsnFacts, Subprog, VerifiedProgram
from netbpf.verifier import state as st
from netbpf.verifier.env import InsnAux, MapInfo, VerifierEnv
from netbpf.verifier.state import RegState, VerifierState
from netbpf.verifier.structure import LD_IMM64, subprog_end

MIXED: Final = -1
UNTRUSTED: Final = -2  # any number may be behind it: on one path suffices
KIND_NAMES: Final = {
    0: "",
    MIXED: "mixed",
    UNTRUSTED: "untrusted",
    st.PTR_TO_CTX: "ctx",
    st.PTR_TO_STACK: "stack",
    st.PTR_TO_MAP_VALUE: "map_value",
    st.PTR_TO_MAP_KEY: "map_key",
    st.PTR_TO_MEM: "mem",
    st.CONST_PTR_TO_MAP: "map_ptr",
    st.PTR_TO_BUF: "buf",
}
FUNC_tail_call: Final = 12
FIRST_INNER: Final = -2  # facts_map of a map found inside map 0; inside map 1: -3 ...
_MAP_SOURCES: Final = {
    op.BPF_PSEUDO_MAP_FD: op.BPF_PSEUDO_MAP_IDX,
    op.BPF_PSEUDO_MAP_IDX: op.BPF_PSEUDO_MAP_IDX,
    op.BPF_PSEUDO_MAP_VALUE: op.BPF_PSEUDO_MAP_IDX_VALUE,
    op.BPF_PSEUDO_MAP_IDX_VALUE: op.BPF_PSEUDO_MAP_IDX_VALUE,
}


def _stack_off(state: VerifierState, reg: RegState, off: int) -> int | None:
    if reg.type != st.PTR_TO_STACK or reg.frameno != state.curframe or reg.var_off.mask:
        return None
    value = reg.var_off.value
    return reg.off + off + (value - (1 << 64) if value >> 63 else value)


def _merge(aux: InsnAux, kind: int, map_number: int, stack_off: int | None) -> None:
    if not aux.facts_kind:
        aux.facts_kind, aux.facts_map, aux.stack_off = kind, map_number, stack_off
        return
    if aux.facts_kind != kind:
        aux.facts_kind = UNTRUSTED if UNTRUSTED in (aux.facts_kind, kind) else MIXED
    if aux.facts_map != map_number:
        aux.facts_map = -1
    if aux.stack_off != stack_off:
        aux.stack_off = None


def note_access(env: VerifierEnv, insn: Instruction, regno: int) -> None:
    """A load, store or atomic goes through register ``regno``."""
    state = env.cur_state
    assert state is not None
    if state.speculative or regno >= op.MAX_BPF_REG:
        return
    reg = state.frame[state.curframe].regs[regno]
    aux, kind = env.insn_aux[env.insn_idx], reg.type & st.BASE_TYPE_MASK
    if reg.type & st.PTR_UNTRUSTED or kind == st.PTR_TO_BTF_ID:
        _merge(aux, UNTRUSTED, -1, None)
    elif kind == st.PTR_TO_STACK:
        _merge(aux, kind, -1, _stack_off(state, reg, insn.off))
    elif aux.facts_kind != kind or reg.map_ptr is not None:
        _merge(aux, kind, _map_number(env, reg.map_ptr), None)


def _map_number(env: VerifierEnv, info: MapInfo | None) -> int:
    """The map's place in the program's list; of a map found inside another FIRST_INNER less the place of the first map of maps
    with such a template; -1 for none."""
    if info is None:
        return -1
    number = env.map_numbers.get(info)
    return FIRST_INNER - _outer_number(env, info) if number is None else number


def _outer_number(env: VerifierEnv, template: MapInfo) -> int:
    alike = template_shape(template.spec)
    return next(i for i, m in enumerate(env.maps) if m.inner is not None and template_shape(m.inner.spec) == alike)


def note_call(env: VerifierEnv, insn: Instruction) -> None:
    """A helper is called: which map it is given."""
    state = env.cur_state
    assert state is not None
    if state.speculative:
        return
    reg = state.frame[state.curframe].regs[2 if insn.imm == FUNC_tail_call else 1]
    if reg.type == st.CONST_PTR_TO_MAP:
        _merge(env.insn_aux[env.insn_idx], st.CONST_PTR_TO_MAP, _map_number(env, reg.map_ptr), None)


def _facts(aux: InsnAux) -> InsnFacts:
    kind = "" if aux.facts_kind == st.CONST_PTR_TO_MAP else KIND_NAMES.get(aux.facts_kind, "mem")
    inner_of = FIRST_INNER - aux.facts_map if aux.facts_map <= FIRST_INNER else -1
    return InsnFacts(bool(aux.seen), kind, max(aux.facts_map, -1), aux.const_key, aux.stack_off, inner_of)


def _with_map_numbers(env: VerifierEnv) -> tuple[Instruction, ...]:
    """The instructions, with every map named by its place in the program's list."""
    insns = list(env.insns)
    for i, insn in enumerate(insns):
        if insn.code == LD_IMM64 and insn.src in _MAP_SOURCES:
            aux = env.insn_aux[i]
            insns[i] = insn._replace(src=_MAP_SOURCES[insn.src], imm=aux.map_index)
            insns[i + 1] = insns[i + 1]._replace(imm=s32(aux.map_off))
    return tuple(insns)


def verified_program(env: VerifierEnv) -> VerifiedProgram | None:
    """The program with its facts; None when a map was only described (MapInfo.map is None): nothing could run it."""
    maps = [info.map for info in env.maps if info.map is not None]
    if len(maps) != len(env.maps):
        return None
    subprogs = tuple(Subprog(s.start, subprog_end(env, i), s.stack_depth, s.name, s.is_cb) for i, s in enumerate(env.subprogs))
    return VerifiedProgram(
        _with_map_numbers(env),
        env.prog_type,
        maps=tuple(maps),
        subprogs=subprogs,
        facts=tuple(_facts(aux) for aux in env.insn_aux),
        license_gpl=env.request.license_gpl,
        name=env.request.name,
        source_lines=_source_lines(env),
    )


def _source_lines(env: VerifierEnv) -> tuple[tuple[int, str], ...]:
    text = env.btf_string
    if text is None:
        return ()
    return tuple((insn_off, text(line_off).strip()) for insn_off, _, line_off, _ in env.request.line_info)
