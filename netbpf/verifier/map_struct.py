"""Reads of the kernel's own structs: through a map pointer, and through the pointers found there.

Applies the layouts of ``abi.map_structs``; a struct that is not there could only be judged with the kernel's BTF.
"""

from __future__ import annotations

import errno
from functools import cache
from typing import Final, NamedTuple

from netbpf.abi.map_structs import STRUCT_OF_MAP, STRUCTS
from netbpf.abi.maps import MapType
from netbpf.errors import ENOTSUPP
from netbpf.ints import S64_MAX
from netbpf.verifier import state as st
from netbpf.verifier.env import Reject, VerifierEnv
from netbpf.verifier.log import verbose
from netbpf.verifier.regs import cur_regs, known_reg, mark_reg_unknown
from netbpf.verifier.state import RegState
from netbpf.verifier.tnum import tnum_strn

BPF_READ: Final = 1


class Member(NamedTuple):
    """One member; ``elements`` is None where it is no array, ``size`` that of one element."""

    name: str
    bit_off: int
    bits: int
    size: int
    elements: int | None
    kind: str
    target: str


class Struct(NamedTuple):
    """A struct or union of ``size`` bytes."""

    name: str
    union: bool
    size: int
    members: tuple[Member, ...]


class Found(NamedTuple):
    """What lies at an offset: an int, or a pointer to ``target`` ("" when not to a struct); ``untrusted``: from a union."""

    kind: str
    target: str = ""
    untrusted: bool = False


class _Refused(Exception):
    """Nothing can be read there: why, and the errno."""

    def __init__(self, text: str, error: int = errno.EACCES) -> None:
        self.text, self.error = text, error


@cache
def _structs() -> dict[str, Struct]:
    """The table, by name."""
    found: dict[str, Struct] = {}
    for block in STRUCTS.replace("\n  ", "\t").splitlines():
        head, *lines = block.split("\t")
        kind, name, size = head.split()
        shown = "(anon)" if name.startswith("#") else name
        found[name] = Struct(shown, kind == "union", int(size), tuple(_member(line) for line in lines))
    return found


def _member(line: str) -> Member:
    name, bit_off, bits, size, elements, kind, target = line.split()
    count = None if elements == "-" else int(elements)
    return Member("" if name == "-" else name, int(bit_off), int(bits), int(size), count, kind, "" if target == "-" else target)


def _at_open_end(struct: Struct, off: int, size: int) -> tuple[str, int]:
    """An access beyond the end is fine in a last member that is an array of any length: (kind or struct, offset in it)."""
    last = struct.members[-1] if struct.members else None
    if last is None or last.elements != 0 or off < last.bit_off // 8:
        raise _Refused(f"access beyond struct {struct.name} at off {off} size {size}\n")
    if last.kind == "struct":
        return last.target, (off - last.bit_off // 8) % last.size
    if last.kind == "int":
        return "", 0
    raise _Refused(f"access beyond struct {struct.name} at off {off} size {size}\n")


def btf_struct_walk(name: str, off: int, size: int) -> Found:
    """What ``size`` bytes at ``off`` of a struct are. Raises _Refused."""
    untrusted = False
    while True:
        struct = _structs()[name]
        untrusted |= struct.union and len(struct.members) != 1
        if off + size > struct.size:
            name, off = _at_open_end(struct, off, size)
            if not name:
                return Found("int")
            continue
        step = _walk_members(struct, off, size, untrusted)
        if isinstance(step, Found):
            return step._replace(untrusted=untrusted)
        name, off = step


def _walk_members(struct: Struct, off: int, size: int, untrusted: bool) -> Found | tuple[str, int]:
    """The member hit: what it is, or the struct it embeds and the offset in that."""
    for member in struct.members:
        at = member.bit_off // 8
        if off + size <= at:
            break
        if member.bits:
            if off <= at and member.bit_off + member.bits <= (off + size) * 8:
                return Found("int")
            continue
        if off < at:
            break
        length = member.size * (1 if member.elements is None else member.elements)
        if off >= at + length:
            continue
        if member.elements is not None:
            at += (off - at) // member.size * member.size
        return _hit(struct, member, at, S64_MAX if untrusted else member.bit_off // 8 + length, off, size)
    raise _Refused(f"struct {struct.name} doesn't have field at offset {off}\n", errno.EINVAL)


def _hit(struct: Struct, member: Member, at: int, end: int, off: int, size: int) -> Found | tuple[str, int]:
    """The access begins in (an element at ``at`` of) the member, which ends at ``end`` (in a union numbers may run on)."""
    if member.kind == "struct":
        return member.target, off - at
    where = f"in struct {struct.name} with off {off} size {size}\n"
    if member.kind == "ptr":
        if member.size != size or off != at:
            raise _Refused(f"cannot access ptr member {member.name} with moff {at} {where}")
        return Found("ptr", member.target)
    if off + size > end:
        raise _Refused(f"access beyond the end of member {member.name} (mend:{end}) {where}")
    return Found("int")


def _give(env: VerifierEnv, found: Found, flags: int, value_regno: int) -> None:
    """The register that was loaded."""
    regs = cur_regs(env)
    if found.kind == "int":
        mark_reg_unknown(env, regs, value_regno)
        return
    reg = known_reg(0, regs[value_regno].precise).copy()
    if found.target:
        reg.type = st.PTR_TO_BTF_ID | flags | (st.PTR_UNTRUSTED if found.untrusted else 0)
        reg.ext = "" if found.target.startswith("#") else found.target
    else:
        reg.type = st.PTR_TO_MEM | st.MEM_RDONLY | st.PTR_UNTRUSTED
    regs[value_regno] = reg


def _load(env: VerifierEnv, name: str, off: int, size: int, value_regno: int, flags: int = 0) -> None:
    try:
        found = btf_struct_walk(name, off, size)
    except _Refused as refused:
        verbose(env, refused.text)
        raise Reject(refused.error) from None
    if value_regno >= 0:
        _give(env, found, flags, value_regno)


def _refuse(env: VerifierEnv, text: str, error: int = errno.EACCES) -> Reject:
    verbose(env, text)
    return Reject(error)


def check_ptr_to_map_access(
    env: VerifierEnv, reg: RegState, regno: int, off: int, size: int, kind: int, value_regno: int
) -> None:
    """A load through a map pointer; needs CAP_PERFMON."""
    map_type = reg.map_ptr.spec.map_type
    name = STRUCT_OF_MAP.get(MapType(map_type).name)
    if name is None:
        raise _refuse(env, f"map_ptr access not supported for map type {map_type}\n", ENOTSUPP)
    if not env.allow_ptr_leaks:
        raise _refuse(env, f"'struct {name}' access is allowed only to CAP_PERFMON and CAP_SYS_ADMIN\n", errno.EPERM)
    if off < 0:
        raise _refuse(env, f"R{regno} is {name} invalid negative access: off={off}\n")
    if kind != BPF_READ:
        raise _refuse(env, f"only read from {name} is supported\n")
    _load(env, name, off, size, value_regno)


def check_ptr_to_btf_access(
    env: VerifierEnv, reg: RegState, regno: int, off: int, size: int, kind: int, value_regno: int
) -> None:
    """A load through a pointer to a struct of the kernel; needs CAP_PERFMON and a GPL program."""
    name = reg.ext
    if not env.allow_ptr_leaks:
        raise _refuse(env, f"'struct {name}' access is allowed only to CAP_PERFMON and CAP_SYS_ADMIN\n", errno.EPERM)
    if not env.request.license_gpl:
        raise _refuse(env, f"Cannot access kernel 'struct {name}' from non-GPL compatible program\n", errno.EINVAL)
    if off < 0:
        raise _refuse(env, f"R{regno} is ptr_{name} invalid negative access: off={off}\n")
    if reg.var_off.mask:
        raise _refuse(env, f"R{regno} is ptr_{name} invalid variable offset: off={off}, {tnum_strn(reg.var_off)}\n")
    if kind != BPF_READ:
        raise _refuse(env, "only read is supported\n")
    if name not in _structs():
        raise _refuse(env, f"R{regno} access to struct {name} needs the kernel's BTF\n")
    _load(env, name, off, size, value_regno, reg.type & st.PTR_UNTRUSTED)
