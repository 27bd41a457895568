"""What a program's BTF says of it: function and line records, checked against its layout, and names for the log.

Called by ``check`` in the kernel's order, with its words and errnos. Knows no register states.
"""

from __future__ import annotations

import errno
from typing import Final

from netbpf.btf import FUNC_GLOBAL, KIND_ENUM, KIND_ENUM64, KIND_FUNC, KIND_FUNC_PROTO, KIND_INT, Btf
from netbpf.errors import BpfError
from netbpf.verifier.env import Reject, SubprogInfo, VerifierEnv
from netbpf.verifier.log import verbose

INT_SIZES: Final = (1, 2, 4, 8)


def _refuse(env: VerifierEnv, text: str) -> Reject:
    verbose(env, text)
    return Reject(errno.EINVAL)


def check_abnormal_return(env: VerifierEnv) -> None:
    """Without BTF nobody says that a function returns a number, so none may leave the program from within."""
    for subprog in env.subprogs[1:]:
        if subprog.has_ld_abs:
            raise _refuse(env, "LD_ABS is not allowed in subprogs without BTF\n")
        if subprog.has_tail_call:
            raise _refuse(env, "tail_call is not allowed in subprogs without BTF\n")


def check_btf_info_early(env: VerifierEnv) -> None:
    """Read the BTF; function records name functions, in order. Before subprograms are known."""
    request = env.request
    if not request.func_info and not request.line_info:
        return
    try:
        env.btf = Btf.parse(request.btf)
    except BpfError as e:
        raise Reject(e.errno or errno.EINVAL) from e
    env.btf_string = env.btf.string
    previous = 0
    for i, (insn_off, type_id) in enumerate(request.func_info):
        if i == 0 and insn_off:
            raise _refuse(env, f"nonzero insn_off {insn_off} for the first func info record")
        if i and insn_off <= previous:
            raise _refuse(env, f"same or smaller insn offset ({insn_off}) than previous func info record ({previous})")
        func = env.btf.type(type_id)
        if func is None or func.kind != KIND_FUNC:
            raise _refuse(env, f"invalid type id {type_id} in func info")
        proto = env.btf.type(func.size_or_type)
        if proto is None or proto.kind != KIND_FUNC_PROTO:
            raise Reject(errno.EINVAL)
        previous = insn_off


def check_btf_info(env: VerifierEnv) -> None:
    """Function and line records against the subprograms found."""
    if not env.request.func_info:
        check_abnormal_return(env)
    else:
        _check_btf_func(env)
    if env.request.line_info:
        _check_btf_line(env)


def _returns_number(btf: Btf, proto_id: int) -> bool:
    returned = btf.type(btf.skip_modifiers(btf.types[proto_id].size_or_type))
    if returned is None or returned.kind == 0:
        return False
    return returned.kind in (KIND_ENUM, KIND_ENUM64) or (returned.kind == KIND_INT and returned.size_or_type in INT_SIZES)


def _check_btf_func(env: VerifierEnv) -> None:
    records, btf = env.request.func_info, env.btf
    assert btf is not None
    if len(records) != len(env.subprogs):
        raise _refuse(env, "number of funcs in func_info doesn't match number of subprogs\n")
    for i, ((insn_off, type_id), subprog) in enumerate(zip(records, env.subprogs, strict=True)):
        if subprog.start != insn_off:
            raise _refuse(env, "func_info BTF section doesn't match subprog layout in BPF program\n")
        func = btf.types[type_id]
        subprog.name = btf.string(func.name_off)
        subprog.is_global = func.vlen == FUNC_GLOBAL
        subprog.func_type_id = type_id
        if i and not _returns_number(btf, func.size_or_type):
            _check_no_abnormal_return(env, subprog)


def _check_no_abnormal_return(env: VerifierEnv, subprog: SubprogInfo) -> None:
    if subprog.has_ld_abs:
        raise _refuse(env, "LD_ABS is only allowed in functions that return 'int'.\n")
    if subprog.has_tail_call:
        raise _refuse(env, "tail_call is only allowed in functions that return 'int'.\n")


def _check_btf_line(env: VerifierEnv) -> None:
    """Line records rise, point at instructions and strings, and every function begins with one."""
    btf, n = env.btf, len(env.insns)
    assert btf is not None
    starts = [subprog.start for subprog in env.subprogs]
    nth = previous = 0
    for i, (insn_off, file_name_off, line_off, _) in enumerate(env.request.line_info):
        if (i and insn_off <= previous) or insn_off >= n:
            text = f"Invalid line_info[{i}].insn_off:{insn_off} (prev_offset:{previous} prog->len:{n})\n"
            raise _refuse(env, text)
        if not env.insns[insn_off].code:
            raise _refuse(env, f"Invalid insn code at line_info[{i}].insn_off\n")
        if not btf.has_string(line_off) or not btf.has_string(file_name_off):
            raise _refuse(env, f"Invalid line_info[{i}].line_off or .file_name_off\n")
        if nth < len(starts):
            if insn_off == starts[nth]:
                nth += 1
            elif starts[nth] < insn_off:
                raise _refuse(env, f"missing bpf_line_info for func#{nth}\n")
        previous = insn_off
    if nth < len(starts):
        raise _refuse(env, f"missing bpf_line_info for {len(starts) - nth} funcs starting from func#{nth}\n")
