"""bpf(2) commands that find objects by id and tell about them: *_GET_NEXT_ID, *_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD, BTF_LOAD."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from typing import Any, Final

from netbpf.abi.commands import OFF_INFO_LEN, OFF_NEXT_ID, PAGE_BYTES, TAG_BYTES, IdAttr, InfoAttr
from netbpf.abi.info import (
    BTF_INFO,
    BTF_INFO_KNOWN_BYTES,
    MAP_INFO,
    MAP_INFO_KNOWN_BYTES,
    PROG_INFO,
    PROG_INFO_KNOWN_BYTES,
    BtfInfo,
    ProgInfo,
)
from netbpf.abi.maps import BPF_F_RDONLY, BPF_F_WRONLY
from netbpf.errors import BpfError
from netbpf.host.sim.machine import Call
from netbpf.host.sim.map_commands import file_mode
from netbpf.host.sim.objects import BtfObject, IdTable, MapObject, ProgObject
from netbpf.isa.instruction import Program, encode
from netbpf.isa.opcodes import BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, is_ld_imm64

_BY_DESCRIPTOR: Final = frozenset({BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE})


def _check_sys_admin(call: Call) -> None:
    if not call.task.is_capable("CAP_SYS_ADMIN"):
        raise BpfError(errno.EPERM)


# --- by id ------------------------------------------------------------------------------------------------------------
def _next_id(call: Call, attr: IdAttr, table: IdTable[Any]) -> int:
    if attr.id >= 0x7FFF_FFFF:
        raise BpfError(errno.EINVAL)
    _check_sys_admin(call)
    following = table.next_id(attr.id)
    if following is None:
        raise BpfError(errno.ENOENT)
    call.put_u32(OFF_NEXT_ID, following)
    return 0


def prog_get_next_id(call: Call, attr: IdAttr) -> int:
    return _next_id(call, attr, call.machine.progs)


def map_get_next_id(call: Call, attr: IdAttr) -> int:
    return _next_id(call, attr, call.machine.maps)


def btf_get_next_id(call: Call, attr: IdAttr) -> int:
    return _next_id(call, attr, call.machine.btfs)


def _open_by_id(call: Call, attr: IdAttr, table: IdTable[Any], mode: int = 3) -> int:
    _check_sys_admin(call)
    obj = table.get(attr.id)
    if obj is None:
        raise BpfError(errno.ENOENT)
    return call.task.open(obj, mode)


def prog_get_fd_by_id(call: Call, attr: IdAttr) -> int:
    return _open_by_id(call, attr, call.machine.progs)


def map_get_fd_by_id(call: Call, attr: IdAttr) -> int:
    if attr.open_flags & ~(BPF_F_RDONLY | BPF_F_WRONLY):
        raise BpfError(errno.EINVAL)
    _check_sys_admin(call)
    return _open_by_id(call, attr, call.machine.maps, file_mode(attr.open_flags))


def btf_get_fd_by_id(call: Call, attr: IdAttr) -> int:
    if attr.open_flags:
        raise BpfError(errno.EINVAL)
    return _open_by_id(call, attr, call.machine.btfs)


# --- BPF_OBJ_GET_INFO_BY_FD -------------------------------------------------------------------------------------------
def obj_get_info_by_fd(call: Call, attr: InfoAttr) -> int:
    try:
        obj = call.task.fds.get(attr.bpf_fd).obj
    except BpfError:
        raise BpfError(errno.EBADFD) from None
    teller = _TELLERS.get(type(obj))
    if teller is None:
        raise BpfError(errno.EINVAL)
    return teller(call, attr, obj)


def _copy_in(call: Call, attr: InfoAttr, known: int, size: int) -> bytes:
    """The caller's info struct, cut or filled with zeros to ``size`` bytes; behind the ``known`` ones only zeros (E2BIG)."""
    if attr.info_len > PAGE_BYTES:
        raise BpfError(errno.E2BIG)
    if attr.info_len > known and any(call.memory.read(attr.info + known, attr.info_len - known)):
        raise BpfError(errno.E2BIG)
    return call.memory.read(attr.info, min(attr.info_len, size)).ljust(size, b"\0")


def _copy_out(call: Call, attr: InfoAttr, packed: bytes) -> int:
    length = min(attr.info_len, len(packed))
    call.memory.write(attr.info, packed[:length])
    call.put_u32(OFF_INFO_LEN, length)
    return 0


def _tell_map(call: Call, attr: InfoAttr, obj: MapObject) -> int:
    _copy_in(call, attr, MAP_INFO_KNOWN_BYTES, MAP_INFO.struct.size)
    return _copy_out(call, attr, MAP_INFO.struct.pack(*obj.info()))


def _tell_prog(call: Call, attr: InfoAttr, obj: ProgObject) -> int:
    asked = PROG_INFO.unpack(_copy_in(call, attr, PROG_INFO_KNOWN_BYTES, PROG_INFO.struct.size))
    btf_id = obj.btf.id if obj.btf else 0
    info = obj.info._replace(id=obj.id, tag=tag_of(obj.source), nr_map_ids=len(obj.maps), btf_id=btf_id)
    ids = b"".join(m.id.to_bytes(4, "little") for m in obj.maps[: asked.nr_map_ids])
    call.memory.write(asked.map_ids, ids)
    info = info._replace(map_ids=asked.map_ids)
    if call.task.is_capable("CAP_BPF"):
        info = _with_code(call, asked, info, obj)
    return _copy_out(call, attr, PROG_INFO.struct.pack(*info))


def tag_of(insns: Program) -> bytes:
    """bpf_prog_calc_tag: the first 8 bytes of the SHA-256 of the instructions, descriptors of maps taken as 0."""
    out, blank = list(insns), False
    for pc, insn in enumerate(insns):
        if blank:
            out[pc] = insn._replace(imm=0)
            blank = False
        elif is_ld_imm64(insn.code) and insn.src in _BY_DESCRIPTOR:
            out[pc] = insn._replace(imm=0)
            blank = True
    return hashlib.sha256(encode(out)).digest()[:TAG_BYTES]


def _with_code(call: Call, asked: ProgInfo, info: ProgInfo, obj: ProgObject) -> ProgInfo:
    """The instructions, for those who may see them."""
    code = encode(obj.insns)
    call.memory.write(asked.xlated_prog_insns, code[: asked.xlated_prog_len])
    return info._replace(xlated_prog_len=len(code), xlated_prog_insns=asked.xlated_prog_insns)


def _tell_btf(call: Call, attr: InfoAttr, obj: BtfObject) -> int:
    asked = BTF_INFO.unpack(_copy_in(call, attr, BTF_INFO_KNOWN_BYTES, BTF_INFO.struct.size))
    call.memory.write(asked.btf, obj.blob[: asked.btf_size])
    return _copy_out(call, attr, BTF_INFO.struct.pack(*BtfInfo(asked.btf, len(obj.blob), obj.id, asked.name, 0, 0)))


_TELLERS: Final[dict[type, Callable[[Call, InfoAttr, Any], int]]] = {
    MapObject: _tell_map,
    ProgObject: _tell_prog,
    BtfObject: _tell_btf,
}
