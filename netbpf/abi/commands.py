"""bpf(2) commands and the shape of ``union bpf_attr`` under each, as the 6.18 header lays it out.

Tables only: numbers, field orders and offsets. Knows nothing of what a command does. Every row is little endian and packed
as the C compiler does on 64-bit machines; a form's fields stand in the union's order, so ``form.row(...)`` reads as the C
initialiser does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Any, Generic, NamedTuple, TypeVar

ATTR_BYTES = 168  # sizeof(union bpf_attr)
PAGE_BYTES = 4096
OBJ_NAME_LEN = 16
TAG_BYTES = 8


class Cmd(IntEnum):
    """enum bpf_cmd."""

    BPF_MAP_CREATE = 0
    BPF_MAP_LOOKUP_ELEM = 1
    BPF_MAP_UPDATE_ELEM = 2
    BPF_MAP_DELETE_ELEM = 3
    BPF_MAP_GET_NEXT_KEY = 4
    BPF_PROG_LOAD = 5
    BPF_OBJ_PIN = 6
    BPF_OBJ_GET = 7
    BPF_PROG_ATTACH = 8
    BPF_PROG_DETACH = 9
    BPF_PROG_TEST_RUN = 10
    BPF_PROG_GET_NEXT_ID = 11
    BPF_MAP_GET_NEXT_ID = 12
    BPF_PROG_GET_FD_BY_ID = 13
    BPF_MAP_GET_FD_BY_ID = 14
    BPF_OBJ_GET_INFO_BY_FD = 15
    BPF_PROG_QUERY = 16
    BPF_RAW_TRACEPOINT_OPEN = 17
    BPF_BTF_LOAD = 18
    BPF_BTF_GET_FD_BY_ID = 19
    BPF_TASK_FD_QUERY = 20
    BPF_MAP_LOOKUP_AND_DELETE_ELEM = 21
    BPF_MAP_FREEZE = 22
    BPF_BTF_GET_NEXT_ID = 23
    BPF_MAP_LOOKUP_BATCH = 24
    BPF_MAP_LOOKUP_AND_DELETE_BATCH = 25
    BPF_MAP_UPDATE_BATCH = 26
    BPF_MAP_DELETE_BATCH = 27
    BPF_LINK_CREATE = 28
    BPF_LINK_UPDATE = 29
    BPF_LINK_GET_FD_BY_ID = 30
    BPF_LINK_GET_NEXT_ID = 31
    BPF_ENABLE_STATS = 32
    BPF_ITER_CREATE = 33
    BPF_LINK_DETACH = 34
    BPF_PROG_BIND_MAP = 35
    BPF_TOKEN_CREATE = 36
    BPF_PROG_STREAM_READ_BY_FD = 37


class MapCreateAttr(NamedTuple):
    map_type: int = 0
    key_size: int = 0
    value_size: int = 0
    max_entries: int = 0
    map_flags: int = 0
    inner_map_fd: int = 0
    numa_node: int = 0
    map_name: bytes = b""
    map_ifindex: int = 0
    btf_fd: int = 0
    btf_key_type_id: int = 0
    btf_value_type_id: int = 0
    btf_vmlinux_value_type_id: int = 0
    map_extra: int = 0
    value_type_btf_obj_fd: int = 0
    map_token_fd: int = 0
    excl_prog_hash: int = 0
    excl_prog_hash_size: int = 0


class MapElemAttr(NamedTuple):
    """BPF_MAP_*_ELEM; ``value`` is ``next_key`` for BPF_MAP_GET_NEXT_KEY. Pointers are addresses."""

    map_fd: int = 0
    key: int = 0
    value: int = 0
    flags: int = 0


class MapBatchAttr(NamedTuple):
    """``n`` is the union's ``count`` (a tuple has a method of that name)."""

    in_batch: int = 0
    out_batch: int = 0
    keys: int = 0
    values: int = 0
    n: int = 0
    map_fd: int = 0
    elem_flags: int = 0
    flags: int = 0


class ProgLoadAttr(NamedTuple):
    prog_type: int = 0
    insn_cnt: int = 0
    insns: int = 0
    license: int = 0
    log_level: int = 0
    log_size: int = 0
    log_buf: int = 0
    kern_version: int = 0
    prog_flags: int = 0
    prog_name: bytes = b""
    prog_ifindex: int = 0
    expected_attach_type: int = 0
    prog_btf_fd: int = 0
    func_info_rec_size: int = 0
    func_info: int = 0
    func_info_cnt: int = 0
    line_info_rec_size: int = 0
    line_info: int = 0
    line_info_cnt: int = 0
    attach_btf_id: int = 0
    attach_prog_fd: int = 0
    core_relo_cnt: int = 0
    fd_array: int = 0
    core_relos: int = 0
    core_relo_rec_size: int = 0
    log_true_size: int = 0
    prog_token_fd: int = 0
    fd_array_cnt: int = 0
    signature: int = 0
    signature_size: int = 0
    keyring_id: int = 0


class ObjAttr(NamedTuple):
    """BPF_OBJ_PIN and BPF_OBJ_GET."""

    pathname: int = 0
    bpf_fd: int = 0
    file_flags: int = 0
    path_fd: int = 0


class TestRunAttr(NamedTuple):
    prog_fd: int = 0
    retval: int = 0
    data_size_in: int = 0
    data_size_out: int = 0
    data_in: int = 0
    data_out: int = 0
    repeat: int = 0
    duration: int = 0
    ctx_size_in: int = 0
    ctx_size_out: int = 0
    ctx_in: int = 0
    ctx_out: int = 0
    flags: int = 0
    cpu: int = 0
    batch_size: int = 0


class IdAttr(NamedTuple):
    """BPF_*_GET_NEXT_ID (``id`` is start_id) and BPF_*_GET_FD_BY_ID."""

    id: int = 0
    next_id: int = 0
    open_flags: int = 0
    fd_by_id_token_fd: int = 0


class InfoAttr(NamedTuple):
    bpf_fd: int = 0
    info_len: int = 0
    info: int = 0


class BtfLoadAttr(NamedTuple):
    btf: int = 0
    btf_log_buf: int = 0
    btf_size: int = 0
    btf_log_size: int = 0
    btf_log_level: int = 0
    btf_log_true_size: int = 0
    btf_flags: int = 0
    btf_token_fd: int = 0


class BindMapAttr(NamedTuple):
    prog_fd: int = 0
    map_fd: int = 0
    flags: int = 0


Row = TypeVar("Row", bound=tuple[Any, ...])


@dataclass(frozen=True, slots=True)
class AttrForm(Generic[Row]):
    """One arm of the union: the row type and its packing."""

    row: type[Row]
    struct: Struct

    def pack(self, row: Row) -> bytearray:
        """A whole, zero-padded ``union bpf_attr``. Raises struct.error for a value its field cannot hold."""
        attr = bytearray(ATTR_BYTES)
        self.struct.pack_into(attr, 0, *row)
        return attr

    def unpack(self, attr: bytes | bytearray) -> Row:
        """The row that ``attr`` (ATTR_BYTES or more) holds."""
        return self.row(*self.struct.unpack_from(attr))


MAP_CREATE = AttrForm(MapCreateAttr, Struct("<7I16s5IQiiQI"))
MAP_ELEM = AttrForm(MapElemAttr, Struct("<I4xQQQ"))
MAP_BATCH = AttrForm(MapBatchAttr, Struct("<QQQQIIQQ"))
PROG_LOAD = AttrForm(ProgLoadAttr, Struct("<IIQQIIQII16sIIIIQIIQIIIIQQIIiIQIi"))
OBJ = AttrForm(ObjAttr, Struct("<QIIi"))
TEST_RUN = AttrForm(TestRunAttr, Struct("<4IQQ4IQQ3I"))
ID = AttrForm(IdAttr, Struct("<IIIi"))
INFO = AttrForm(InfoAttr, Struct("<IIQ"))
BTF_LOAD = AttrForm(BtfLoadAttr, Struct("<QQ5Ii"))
BIND_MAP = AttrForm(BindMapAttr, Struct("<III"))

# Where a command writes back into the caller's attr.
OFF_NEXT_ID = 4
OFF_INFO_LEN = 4
OFF_BATCH_COUNT = 32
OFF_LOG_TRUE_SIZE = 140
OFF_BTF_LOG_TRUE_SIZE = 28
OFF_TEST_RETVAL = 4
OFF_TEST_DATA_SIZE_OUT = 12
OFF_TEST_DURATION = 36
OFF_TEST_CTX_SIZE_OUT = 44


@dataclass(frozen=True, slots=True)
class Command:
    """``used_bytes``: attr bytes the command knows; every byte behind them must be zero (EINVAL)."""

    cmd: Cmd
    form: AttrForm[Any]
    used_bytes: int


COMMANDS: dict[int, Command] = {
    row.cmd: row
    for row in (
        Command(Cmd.BPF_MAP_CREATE, MAP_CREATE, 92),
        Command(Cmd.BPF_MAP_LOOKUP_ELEM, MAP_ELEM, 32),
        Command(Cmd.BPF_MAP_UPDATE_ELEM, MAP_ELEM, 32),
        Command(Cmd.BPF_MAP_DELETE_ELEM, MAP_ELEM, 16),
        Command(Cmd.BPF_MAP_GET_NEXT_KEY, MAP_ELEM, 24),
        Command(Cmd.BPF_PROG_LOAD, PROG_LOAD, 168),
        Command(Cmd.BPF_OBJ_PIN, OBJ, 20),
        Command(Cmd.BPF_OBJ_GET, OBJ, 20),
        Command(Cmd.BPF_PROG_TEST_RUN, TEST_RUN, 76),
        Command(Cmd.BPF_PROG_GET_NEXT_ID, ID, 8),
        Command(Cmd.BPF_MAP_GET_NEXT_ID, ID, 8),
        Command(Cmd.BPF_PROG_GET_FD_BY_ID, ID, 4),
        Command(Cmd.BPF_MAP_GET_FD_BY_ID, ID, 12),
        Command(Cmd.BPF_OBJ_GET_INFO_BY_FD, INFO, 16),
        Command(Cmd.BPF_BTF_LOAD, BTF_LOAD, 40),
        Command(Cmd.BPF_BTF_GET_FD_BY_ID, ID, 16),
        Command(Cmd.BPF_MAP_LOOKUP_AND_DELETE_ELEM, MAP_ELEM, 32),
        Command(Cmd.BPF_MAP_FREEZE, MAP_ELEM, 4),
        Command(Cmd.BPF_BTF_GET_NEXT_ID, ID, 8),
        Command(Cmd.BPF_MAP_LOOKUP_BATCH, MAP_BATCH, 56),
        Command(Cmd.BPF_MAP_LOOKUP_AND_DELETE_BATCH, MAP_BATCH, 56),
        Command(Cmd.BPF_MAP_UPDATE_BATCH, MAP_BATCH, 56),
        Command(Cmd.BPF_MAP_DELETE_BATCH, MAP_BATCH, 56),
        Command(Cmd.BPF_PROG_BIND_MAP, BIND_MAP, 12),
    )
}
