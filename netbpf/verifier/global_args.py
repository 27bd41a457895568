"""Arguments of the program's own functions, as their BTF tells them: checked at calls, assumed when a function is proved alone.

A global function's BTF is a promise: every caller is held to it, and the function is walked once with nothing else known.
A static function's BTF is only compared: where it does not fit it is not trusted again.
"""

from __future__ import annotations

import errno
from typing import Final, NamedTuple

from netbpf.abi import arg_types as at
from netbpf.btf import KIND_ARRAY, KIND_ENUM, KIND_ENUM64, KIND_INT, KIND_PTR, KIND_STRUCT, KIND_UNION, Btf, BtfType, Member
from netbpf.verifier import state as st
from netbpf.verifier.args import check_func_arg_reg_off, process_dynptr_func
from netbpf.verifier.dynptr import DYNPTR_LOCAL, dynptr_reg
from netbpf.verifier.env import Reject, SubprogInfo, VerifierEnv
from netbpf.verifier.log import verbose
from netbpf.verifier.memory import check_mem_reg
from netbpf.verifier.regs import known_reg, unknown_reg
from netbpf.verifier.state import RegState

MAX_BPF_FUNC_REG_ARGS: Final = 5
KIND_VOID: Final = 0
_NUMBERS: Final = frozenset({KIND_INT, KIND_ENUM, KIND_ENUM64})
_MAY_BE_EMPTY: Final = frozenset({KIND_STRUCT, KIND_UNION, KIND_ARRAY})
_CTX_STRUCT: Final = "__sk_buff"
_DYNPTR_STRUCT: Final = "bpf_dynptr"

# declaration tags "arg:..." of a parameter
_TAG_PREFIX: Final = "arg:"
_TAGS: Final = frozenset({"ctx", "nonnull", "trusted", "nullable", "arena", "untrusted"})
# btf_kind_str
_KIND_WORDS: Final = (
    "UNKNOWN INT PTR ARRAY STRUCT UNION ENUM FWD TYPEDEF VOLATILE CONST RESTRICT FUNC FUNC_PROTO VAR DATASEC FLOAT DECL_TAG "
    "TYPE_TAG ENUM64"
).split()


class SubprogArg(NamedTuple):
    """One parameter: an ARG_* kind, and the bytes an ARG_PTR_TO_MEM points to."""

    arg_type: int
    mem_size: int = 0


class _Unusable(Exception):
    """The function's BTF gives no arguments to check: an errno."""

    def __init__(self, error: int) -> None:
        self.error = error


def _say(env: VerifierEnv, is_global: bool, text: str, error: int = errno.EINVAL) -> _Unusable:
    """Only a global function's shortcomings are worth words."""
    if is_global:
        verbose(env, text)
    return _Unusable(error)


def _tags(btf: Btf, func_id: int, index: int) -> frozenset[str]:
    return frozenset(tag.removeprefix(_TAG_PREFIX) for tag in btf.decl_tags(func_id, index) if tag.startswith(_TAG_PREFIX))


def _is_struct(target: BtfType | None) -> bool:
    return target is not None and target.kind == KIND_STRUCT


def _check_ctx_type(env: VerifierEnv, index: int, target: BtfType | None, name: str) -> None:
    """A parameter tagged as the context points to the program type's context struct, or to void."""
    if target is None or target.kind == KIND_VOID or (_is_struct(target) and name == _CTX_STRUCT):
        return
    if not name:
        raise _say(env, True, f"arg#{index} type doesn't have a name\n")
    raise _say(env, True, f"arg#{index} should be `struct {_CTX_STRUCT} *`\n")


def _alone(env: VerifierEnv, index: int, tag: str, tags: frozenset[str]) -> None:
    if tags != {tag}:
        raise _say(env, True, f"arg#{index} {tag} cannot be combined with any other tags\n")


def _kernel_type(env: VerifierEnv, index: int, target: BtfType | None, name: str) -> _Unusable:
    """A pointer to a struct of the kernel: which one, only the kernel's BTF could tell, so none is known."""
    kind = _KIND_WORDS[target.kind if target is not None else 0]
    if not name:
        return _say(env, True, f"arg#{index} reference type('{kind} (anon)') candidate matching error: -22\n")
    return _say(env, True, f"arg#{index} reference type('{kind} {name}') has no matches\n", errno.ENOENT)


def _pointer_arg(env: VerifierEnv, btf: Btf, index: int, param: BtfType, tags: frozenset[str], is_global: bool) -> SubprogArg:
    """A pointer parameter: the context, a dynptr, or memory of a known size."""
    target_id = btf.skip_modifiers(param.size_or_type)
    target, name = btf.type(target_id), btf.name(target_id)
    if "ctx" in tags or (_is_struct(target) and name == _CTX_STRUCT):
        if tags - {"ctx"}:
            raise _say(env, True, f"arg#{index} has invalid combination of tags\n")
        if tags:
            _check_ctx_type(env, index, target, name)
        return SubprogArg(at.ARG_PTR_TO_CTX)
    if _is_struct(target) and name == _DYNPTR_STRUCT:
        if tags:
            raise _say(env, True, f"arg#{index} has invalid combination of tags\n")
        return SubprogArg(at.ARG_PTR_TO_DYNPTR | at.MEM_RDONLY)
    if "trusted" in tags:
        if "nonnull" in tags:
            raise _say(env, True, f"arg#{index} has invalid combination of tags\n")
        raise _kernel_type(env, index, target, name)
    if "untrusted" in tags:
        _alone(env, index, "untrusted", tags)
        if target is None or target.kind == KIND_VOID or target.kind in _NUMBERS:
            return SubprogArg(at.ARG_PTR_TO_MEM | at.MEM_RDONLY | at.PTR_UNTRUSTED)
        raise _kernel_type(env, index, target, name)
    if "arena" in tags:
        _alone(env, index, "arena", tags)
        return SubprogArg(at.ARG_PTR_TO_ARENA)
    if not is_global:
        raise _Unusable(errno.EINVAL)
    if tags - {"nonnull"}:
        raise _say(env, True, f"arg#{index} has invalid combination of tags\n")
    size = btf.size(target_id)
    if target is None or not (size or target.kind in _MAY_BE_EMPTY):
        kind = _KIND_WORDS[target.kind if target is not None else 0]
        raise _say(env, True, f"arg#{index} reference type('{kind} {name}') size cannot be determined: -22\n")
    return SubprogArg(at.ARG_PTR_TO_MEM | (0 if "nonnull" in tags else at.PTR_MAYBE_NULL), size)


def _arg(env: VerifierEnv, btf: Btf, info: SubprogInfo, index: int, member: Member) -> SubprogArg:
    tags = _tags(btf, info.func_type_id, index)
    if tags and not info.is_global:
        raise _say(env, True, f"arg#{index} type tag is not supported in static functions\n", errno.EOPNOTSUPP)
    if tags - _TAGS:
        raise _say(env, True, f"arg#{index} has unsupported set of tags\n", errno.EOPNOTSUPP)
    param = btf.type(btf.skip_modifiers(member.type_id))
    if param is not None and param.kind == KIND_PTR:
        return _pointer_arg(env, btf, index, param, tags, info.is_global)
    if tags:
        raise _say(env, True, f"arg#{index} has pointer tag, but is not a pointer type\n")
    if param is not None and param.kind in _NUMBERS:
        return SubprogArg(at.ARG_ANYTHING)
    kind = _KIND_WORDS[param.kind if param is not None else 0]
    raise _say(env, info.is_global, f"Arg#{index} type {kind} in {info.name}() is not supported yet.\n")


def _read_args(env: VerifierEnv, info: SubprogInfo) -> tuple[SubprogArg, ...]:
    btf = env.btf
    if not env.request.func_info or btf is None:
        raise _Unusable(errno.EINVAL)
    if info.unreliable:
        raise _Unusable(errno.EINVAL)
    proto_id = btf.types[info.func_type_id].size_or_type
    proto = btf.types[proto_id]
    if proto.vlen > MAX_BPF_FUNC_REG_ARGS:
        text = f"Global function {info.name}() with {proto.vlen} > {MAX_BPF_FUNC_REG_ARGS} args. Buggy compiler.\n"
        raise _say(env, info.is_global, text)
    returned = btf.type(btf.skip_modifiers(proto.size_or_type))
    if returned is None or returned.kind not in _NUMBERS:
        text = f"Global function {info.name}() doesn't return scalar. Only those are supported.\n"
        raise _say(env, info.is_global, text)
    return tuple(_arg(env, btf, info, i, member) for i, member in enumerate(btf.members(proto_id)))


def btf_prepare_func_args(env: VerifierEnv, subprog: int) -> int:
    """Fill in the function's ``args``; 0, or the errno of a BTF that does not tell them."""
    info = env.subprogs[subprog]
    if info.args_cached:
        return 0
    try:
        info.args = _read_args(env, info)
    except _Unusable as e:
        return e.error
    info.args_cached = True
    return 0


# --- at a call ------------------------------------------------------------------------------------------------------------


def _check_arg(env: VerifierEnv, index: int, arg: SubprogArg, reg: RegState) -> bool:
    """One argument of a call. False where it does not fit (said in the log)."""
    regno, base = index + 1, arg.arg_type & st.BASE_TYPE_MASK
    if arg.arg_type & at.PTR_UNTRUSTED:
        return True  # loads through it do not fault, and it takes no stores
    if base == at.ARG_PTR_TO_ARENA:  # maps that are arenas cannot be made here: no register points into one
        if reg.type != st.SCALAR_VALUE:
            verbose(env, f"R{regno} is not a pointer to arena or scalar.\n")
        return reg.type == st.SCALAR_VALUE
    if base == at.ARG_ANYTHING:
        if reg.type != st.SCALAR_VALUE:
            verbose(env, f"R{regno} is not a scalar\n")
        return reg.type == st.SCALAR_VALUE
    if base == at.ARG_PTR_TO_DYNPTR:
        check_func_arg_reg_off(env, reg, regno, at.ARG_PTR_TO_DYNPTR)
        process_dynptr_func(env, regno, -1, arg.arg_type)
        return True
    check_func_arg_reg_off(env, reg, regno, at.ARG_DONTCARE)
    if base == at.ARG_PTR_TO_CTX:
        if reg.type != st.PTR_TO_CTX:
            verbose(env, f"arg#{index} expects pointer to ctx\n")
        return reg.type == st.PTR_TO_CTX
    try:
        check_mem_reg(env, reg, regno, arg.mem_size)
    except Reject:
        return False
    if not arg.arg_type & at.PTR_MAYBE_NULL and reg.type & st.PTR_MAYBE_NULL:
        verbose(env, f"arg#{index} is expected to be non-NULL\n")
        return False
    return True


def _check_args(env: VerifierEnv, info: SubprogInfo, regs: list[RegState]) -> int:
    try:
        fits = all(_check_arg(env, i, arg, regs[i + 1]) for i, arg in enumerate(info.args))
    except Reject as reject:
        return reject.errno
    return 0 if fits else errno.EINVAL


def btf_check_subprog_call(env: VerifierEnv, subprog: int, regs: list[RegState]) -> int:
    """Hold a call's registers to the function's BTF: 0, or an errno (a static function without fitting BTF is none's fault)."""
    info = env.subprogs[subprog]
    if not env.request.func_info or info.unreliable:
        return errno.EINVAL
    error = btf_prepare_func_args(env, subprog) or _check_args(env, info, regs)
    if error:
        info.unreliable = True
    return error


# --- a function proved alone --------------------------------------------------------------------------------------------------


def _promised(env: VerifierEnv, arg: SubprogArg) -> RegState:
    """The register a function gets for a parameter of which only its BTF is known."""
    base = arg.arg_type & st.BASE_TYPE_MASK
    if base in (at.ARG_ANYTHING, at.ARG_PTR_TO_ARENA):
        return unknown_reg(env)
    if base == at.ARG_PTR_TO_DYNPTR:
        return dynptr_reg(DYNPTR_LOCAL, True, env.new_id())
    reg = known_reg(0).copy()
    if base == at.ARG_PTR_TO_CTX:
        reg.type = st.PTR_TO_CTX
        return reg
    reg.type, reg.mem_size = st.PTR_TO_MEM | arg.arg_type & ~st.BASE_TYPE_MASK, arg.mem_size
    if reg.type & st.PTR_MAYBE_NULL:
        reg.id = env.new_id()
    return reg


def check_main_args(env: VerifierEnv) -> None:
    """The main program's BTF should say that it takes the context; where it does not, it is not trusted (no reason to refuse)."""
    if not env.request.func_info:
        return
    info = env.subprogs[0]
    if btf_prepare_func_args(env, 0) or len(info.args) != 1 or info.args[0].arg_type != at.ARG_PTR_TO_CTX:
        info.unreliable = True


def set_global_args(env: VerifierEnv, subprog: int, regs: list[RegState]) -> None:
    """R1.. of a global function that is walked by itself. Raises Reject where its BTF does not tell them."""
    error = btf_prepare_func_args(env, subprog)
    if error:
        raise Reject(error)
    for i, arg in enumerate(env.subprogs[subprog].args):
        regs[i + 1] = _promised(env, arg)
