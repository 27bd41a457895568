"""``struct bpf_prog_info``, ``bpf_map_info`` and ``bpf_btf_info`` of 6.18, as BPF_OBJ_GET_INFO_BY_FD fills them. Tables only."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from netbpf.abi.commands import AttrForm


class ProgInfo(NamedTuple):
    type: int = 0
    id: int = 0
    tag: bytes = b""
    jited_prog_len: int = 0
    xlated_prog_len: int = 0
    jited_prog_insns: int = 0
    xlated_prog_insns: int = 0
    load_time: int = 0
    created_by_uid: int = 0
    nr_map_ids: int = 0
    map_ids: int = 0
    name: bytes = b""
    ifindex: int = 0
    gpl_compatible: int = 0
    netns_dev: int = 0
    netns_ino: int = 0
    nr_jited_ksyms: int = 0
    nr_jited_func_lens: int = 0
    jited_ksyms: int = 0
    jited_func_lens: int = 0
    btf_id: int = 0
    func_info_rec_size: int = 0
    func_info: int = 0
    nr_func_info: int = 0
    nr_line_info: int = 0
    line_info: int = 0
    jited_line_info: int = 0
    nr_jited_line_info: int = 0
    line_info_rec_size: int = 0
    jited_line_info_rec_size: int = 0
    nr_prog_tags: int = 0
    prog_tags: int = 0
    run_time_ns: int = 0
    run_cnt: int = 0
    recursion_misses: int = 0
    verified_insns: int = 0
    attach_btf_obj_id: int = 0
    attach_btf_id: int = 0


class MapInfo(NamedTuple):
    type: int = 0
    id: int = 0
    key_size: int = 0
    value_size: int = 0
    max_entries: int = 0
    map_flags: int = 0
    name: bytes = b""
    ifindex: int = 0
    btf_vmlinux_value_type_id: int = 0
    netns_dev: int = 0
    netns_ino: int = 0
    btf_id: int = 0
    btf_key_type_id: int = 0
    btf_value_type_id: int = 0
    btf_vmlinux_id: int = 0
    map_extra: int = 0
    hash: int = 0
    hash_size: int = 0


class BtfInfo(NamedTuple):
    btf: int = 0
    btf_size: int = 0
    id: int = 0
    name: int = 0
    name_len: int = 0
    kernel_btf: int = 0


PROG_INFO = AttrForm(ProgInfo, Struct("<II8sIIQQQIIQ16sIIQQIIQQIIQIIQQIIIIQQQQIII4x"))
MAP_INFO = AttrForm(MapInfo, Struct("<6I16sIIQQ4IQQI4x"))
BTF_INFO = AttrForm(BtfInfo, Struct("<QIIQII"))

# Bytes of each that the kernel looks at: those behind them, padding too, must be zero (E2BIG).
PROG_INFO_KNOWN_BYTES = 228
MAP_INFO_KNOWN_BYTES = 100
BTF_INFO_KNOWN_BYTES = 32
