"""BPF_PROG_LOAD, BPF_PROG_BIND_MAP: privileges, what the attr points to, the verifier's answer, a program object."""

from __future__ import annotations

import errno
from typing import Any, Final

from netbpf.abi.caps import NET_ADMIN_PROG_TYPES, PERFMON_PROG_TYPES
from netbpf.abi.commands import OFF_LOG_TRUE_SIZE, BindMapAttr, ProgLoadAttr
from netbpf.abi.info import ProgInfo
from netbpf.abi.maps import BPF_F_RDONLY_PROG, MapType
from netbpf.abi.prog_types import PROG_TYPES, ProgType
from netbpf.btf import Btf, special_fields
from netbpf.errors import BpfError
from netbpf.host.memory import read_string
from netbpf.host.sim.attach_types import fix_attach_type, is_attach_type_ok
from netbpf.host.sim.log_buffer import LogBuffer
from netbpf.host.sim.machine import Call, Task, check_name
from netbpf.host.sim.objects import BtfObject, MapObject, ProgObject
from netbpf.isa.instruction import INSN_BYTES, Instruction, Program, decode
from netbpf.isa.opcodes import (
    BPF_PSEUDO_MAP_FD,
    BPF_PSEUDO_MAP_IDX,
    BPF_PSEUDO_MAP_IDX_VALUE,
    BPF_PSEUDO_MAP_VALUE,
    is_ld_imm64,
)
from netbpf.maps.prog_array import ProgArrayMap
from netbpf.program import VerifiedProgram
from netbpf.verifier.env import BPF_COMPLEXITY_LIMIT_INSNS, BPF_MAXINSNS, LoadRequest, MapInfo, Privileges, VerifierResult

PROG_FLAGS: Final = 0xFF | 1 << 16
BPF_F_TOKEN_FD: Final = 1 << 16
FD_ARRAY_MAX: Final = 0xFFFF_FFFF // 4
LICENSE_BYTES: Final = 128
MAX_FUNC_INFO_REC: Final = 252
GPL_COMPATIBLE: Final = frozenset(
    {b"GPL", b"GPL v2", b"GPL and additional rights", b"Dual BSD/GPL", b"Dual MIT/GPL", b"Dual MPL/GPL"}
)
_BY_FD: Final = frozenset({BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE})
_BY_IDX: Final = frozenset({BPF_PSEUDO_MAP_IDX, BPF_PSEUDO_MAP_IDX_VALUE})


def prog_load(call: Call, attr: ProgLoadAttr) -> int:
    """A descriptor of a proved program."""
    attr = attr._replace(expected_attach_type=fix_attach_type(attr.prog_type, attr.expected_attach_type))
    _check_flags(attr)
    _check_may_load(call.task, call.machine.sysctl.unprivileged_bpf_disabled, attr)
    _check_target(call, attr)
    insns = decode(call.memory.read(attr.insns, attr.insn_cnt * INSN_BYTES))
    license = read_string(call.memory, attr.license, LICENSE_BYTES - 1)
    if attr.signature:
        raise BpfError(errno.EOPNOTSUPP)
    if attr.prog_type not in PROG_TYPES or attr.prog_type == ProgType.LIRC_MODE2:
        raise BpfError(errno.EINVAL)
    name = check_name(attr.prog_name)
    log = LogBuffer(attr.log_level, attr.log_buf, attr.log_size)
    log.check()
    request = _request(call, attr, insns, license in GPL_COMPATIBLE, name)
    result = _verify(request)
    _answer_log(call, log, result)
    assert result.program is not None
    obj = _make_object(call, attr, insns, request, result.program, name, result.stats.insn_processed)
    return call.task.adopt(obj)


def _check_flags(attr: ProgLoadAttr) -> None:
    if attr.prog_flags & ~PROG_FLAGS or attr.prog_flags & BPF_F_TOKEN_FD:  # tokens are not simulated
        raise BpfError(errno.EINVAL)


def _check_may_load(task: Task, disabled: int, attr: ProgLoadAttr) -> None:
    """Privilege and size, in the kernel's order."""
    capable = task.is_capable("CAP_BPF")
    if disabled and not capable:
        raise BpfError(errno.EPERM)
    if not 0 < attr.insn_cnt <= (BPF_COMPLEXITY_LIMIT_INSNS if capable else BPF_MAXINSNS):
        raise BpfError(errno.E2BIG)
    row = PROG_TYPES.get(attr.prog_type)
    if not capable and not (row and row.unpriv):
        raise BpfError(errno.EPERM)
    if attr.prog_type in NET_ADMIN_PROG_TYPES and not task.is_capable("CAP_NET_ADMIN"):
        raise BpfError(errno.EPERM)
    if attr.prog_type in PERFMON_PROG_TYPES and not task.is_capable("CAP_PERFMON"):
        raise BpfError(errno.EPERM)


def _check_target(call: Call, attr: ProgLoadAttr) -> None:
    """What the program would be attached to: only types that need no BTF target are simulated."""
    if attr.attach_prog_fd or attr.attach_btf_id or attr.prog_ifindex:
        raise BpfError(errno.EINVAL)
    if not is_attach_type_ok(attr.prog_type, attr.expected_attach_type):
        raise BpfError(errno.EINVAL)


# --- what the verifier is asked ---------------------------------------------------------------------------------------
def _request(call: Call, attr: ProgLoadAttr, insns: Program, license_gpl: bool, name: bytes) -> LoadRequest:
    task, fd_array = call.task, _fd_array(call, attr, insns)
    return LoadRequest(
        insns=insns,
        prog_type=attr.prog_type,
        license_gpl=license_gpl,
        prog_flags=attr.prog_flags,
        expected_attach_type=attr.expected_attach_type,
        log_level=attr.log_level,
        name=name.decode("latin-1"),
        privileges=Privileges.from_caps(task.is_capable("CAP_BPF"), task.is_capable("CAP_PERFMON")),
        fd_maps=_maps_by_fd(call, [*_references(insns, _BY_FD), *fd_array]),
        fd_array=fd_array,
        **_btf_fields(call, attr),
    )


def _references(insns: Program, sources: frozenset[int]) -> list[int]:
    """imm of every LD_IMM64 whose src is one of ``sources``."""
    return [i.imm for i in insns if i.src in sources and is_ld_imm64(i.code)]


def _maps_by_fd(call: Call, fds: list[int]) -> dict[int, MapInfo | None]:
    """A descriptor that is open but no map is there with None; one that is not open is absent."""
    found: dict[int, MapInfo | None] = {}
    for fd in fds:
        file = call.task.fds.find(fd)
        if file is not None:
            found[fd] = _map_info(file.obj)
    return found


def _fd_array(call: Call, attr: ProgLoadAttr, insns: Program) -> tuple[int, ...]:
    """The descriptors that map indexes count in. With fd_array_cnt, each of them must be a map or BTF. Raises BpfError."""
    if attr.fd_array_cnt >= FD_ARRAY_MAX:
        raise BpfError(errno.EINVAL)
    indexes = _references(insns, _BY_IDX) if attr.fd_array else []
    for index in indexes:  # negative ones too: the kernel reads before the array
        _fd_at(call, attr, index)
    count = max(attr.fd_array_cnt, max(indexes, default=-1) + 1)
    fds = tuple(_fd_at(call, attr, index) for index in range(count))
    for fd in fds[: attr.fd_array_cnt]:
        if not isinstance(call.task.fds.get(fd).obj, (MapObject, BtfObject)):
            raise BpfError(errno.EINVAL)
    return fds


def _fd_at(call: Call, attr: ProgLoadAttr, index: int) -> int:
    return int.from_bytes(call.memory.read((attr.fd_array + 4 * index) % (1 << 64), 4), "little", signed=True)


def _map_info(obj: object) -> MapInfo | None:
    if not isinstance(obj, MapObject):
        return None
    spec, live = obj.spec, obj.map
    contents = None
    if live.frozen and spec.map_type == MapType.ARRAY and spec.map_flags & BPF_F_RDONLY_PROG and spec.max_entries == 1:
        contents = live.lookup_user(bytes(4))
    return MapInfo(
        spec=spec,
        map=live,
        frozen=live.frozen,
        contents=contents,
        inner=MapInfo(spec.inner._replace(name="")) if spec.inner else None,  # a template has no name in the log
        btf_record=_special_fields(obj),
    )


def _special_fields(obj: MapObject) -> dict[str, int]:
    """The fields of the map's values that belong to the kernel, as the map's BTF tells them."""
    if obj.btf is None or not obj.btf_value_type_id:
        return {}
    return special_fields(Btf.parse(obj.btf.blob), obj.btf_value_type_id)


def _btf_fields(call: Call, attr: ProgLoadAttr) -> dict[str, Any]:
    if not (attr.func_info_cnt or attr.line_info_cnt):
        return {}
    return {
        "btf": call.btf(attr.prog_btf_fd).blob,
        "func_info": _rows(call, attr.func_info, attr.func_info_cnt, attr.func_info_rec_size, 2),
        "line_info": _rows(call, attr.line_info, attr.line_info_cnt, attr.line_info_rec_size, 4),
    }


def _rows(call: Call, address: int, count: int, row_bytes: int, words: int) -> tuple[tuple[int, ...], ...]:
    """``count`` rows of ``words`` u32; longer rows must end in zeros. Raises BpfError(EINVAL, E2BIG, EFAULT)."""
    if not count:
        return ()
    if row_bytes < 4 * words or row_bytes > MAX_FUNC_INFO_REC or row_bytes % 4:
        raise BpfError(errno.EINVAL)
    raw = call.memory.read(address, count * row_bytes)
    rows = []
    for at in range(0, len(raw), row_bytes):
        if any(raw[at + 4 * words : at + row_bytes]):
            raise BpfError(errno.E2BIG)
        rows.append(tuple(int.from_bytes(raw[at + 4 * k : at + 4 * k + 4], "little") for k in range(words)))
    return tuple(rows)


def _verify(request: LoadRequest) -> VerifierResult:
    from netbpf.verifier.check import verify

    return verify(request)


# --- what comes of its answer -----------------------------------------------------------------------------------------
def _answer_log(call: Call, log: LogBuffer, result: VerifierResult) -> None:
    """The log to its buffer and its size to the attr; then the verdict, unless the log has an error of its own."""
    call.task.last_refusal = result.diagnosis if result.errno else None
    true_size, log_errno = log.deliver(call.memory, result.log)
    if call.size >= OFF_LOG_TRUE_SIZE + 4:
        call.put_u32(OFF_LOG_TRUE_SIZE, true_size)
    if log_errno or result.errno:
        raise BpfError(log_errno or result.errno)


def _make_object(
    call: Call,
    attr: ProgLoadAttr,
    insns: Program,
    request: LoadRequest,
    program: VerifiedProgram,
    name: bytes,
    verified_insns: int,
) -> ProgObject:
    by_map = {id(obj.map): obj for obj in call.machine.maps}
    held = tuple(by_map[id(live)] for live in program.maps)
    tables = [obj.map for obj in held if isinstance(obj.map, ProgArrayMap)]
    if not all(table.is_compatible(attr.prog_type) for table in tables):
        raise BpfError(errno.EINVAL)
    shown = _by_map_id(call, attr, insns)
    info = ProgInfo(
        type=attr.prog_type,
        xlated_prog_len=len(shown) * INSN_BYTES,
        load_time=call.machine.env.boot_ns(),
        created_by_uid=call.task.uid,
        name=name,
        gpl_compatible=int(request.license_gpl),
        verified_insns=verified_insns,
    )
    btf = call.btf(attr.prog_btf_fd) if request.btf else None
    return ProgObject(call.machine.progs, program, held, insns, shown, info, btf)


def _by_map_id(call: Call, attr: ProgLoadAttr, insns: Program) -> Program:
    """The instructions with each map reference told by map id, as BPF_OBJ_GET_INFO_BY_FD shows them."""
    out = list(insns)
    for pc, insn in enumerate(insns):
        if not is_ld_imm64(insn.code) or insn.src not in _BY_FD | _BY_IDX:
            continue
        fd = insn.imm
        if insn.src in _BY_IDX:
            fd = _fd_at(call, attr, fd)
        src = BPF_PSEUDO_MAP_FD if insn.src in (BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_IDX) else BPF_PSEUDO_MAP_VALUE
        out[pc] = Instruction(insn.code, insn.dst, src, insn.off, call.map_file(fd)[1].id)
    return tuple(out)


def prog_bind_map(call: Call, attr: BindMapAttr) -> int:
    if attr.flags:
        raise BpfError(errno.EINVAL)
    prog = call.prog(attr.prog_fd)
    prog.bind(call.map_file(attr.map_fd)[1])
    return 0
