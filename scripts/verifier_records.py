"""Records of programs with the kernel's verdict, as questions to our verifier: what the scripts and tests here share.

The record form is told in the vectors' README: a JSON object a line with `insns`, `maps`, `map_relocs`, `kernel`,
`unpriv`, `capbpf`; the generated sweep has `mode`, `verdict`, `errno`, `processed`, `msg` instead.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netbpf.abi.maps import MAP_KINDS, MapType
from netbpf.abi.prog_types import PROG_TYPES, ProgType
from netbpf.isa.instruction import Instruction, Program, decode
from netbpf.isa.opcodes import BPF_CALL, BPF_JMP
from netbpf.maps.spec import MapSpec
from netbpf.verifier.env import LoadRequest, MapInfo, Privileges

PRIVILEGES = {
    "priv": Privileges(),
    "capbpf": Privileges.from_caps(True, False),
    "unpriv": Privileges.from_caps(False, False),
}
PROG_TYPE_BY_NAME = {row.name: int(kind) for kind, row in PROG_TYPES.items()}
# the types whose context we know
SUPPORTED = sorted((row.name for row in PROG_TYPES.values() if row.context), key=lambda n: PROG_TYPE_BY_NAME[n])

# enum bpf_attach_type, in order
ATTACH_TYPES = [
    "cgroup_inet_ingress",
    "cgroup_inet_egress",
    "cgroup_inet_sock_create",
    "cgroup_sock_ops",
    "sk_skb_stream_parser",
    "sk_skb_stream_verdict",
    "cgroup_device",
    "sk_msg_verdict",
    "cgroup_inet4_bind",
    "cgroup_inet6_bind",
    "cgroup_inet4_connect",
    "cgroup_inet6_connect",
    "cgroup_inet4_post_bind",
    "cgroup_inet6_post_bind",
    "cgroup_udp4_sendmsg",
    "cgroup_udp6_sendmsg",
    "lirc_mode2",
    "flow_dissector",
    "cgroup_sysctl",
    "cgroup_udp4_recvmsg",
    "cgroup_udp6_recvmsg",
    "cgroup_getsockopt",
    "cgroup_setsockopt",
    "trace_raw_tp",
    "trace_fentry",
    "trace_fexit",
    "modify_return",
    "lsm_mac",
    "trace_iter",
    "cgroup_inet4_getpeername",
    "cgroup_inet6_getpeername",
    "cgroup_inet4_getsockname",
    "cgroup_inet6_getsockname",
    "xdp_devmap",
    "cgroup_inet_sock_release",
    "xdp_cpumap",
    "sk_lookup",
    "xdp",
    "sk_skb_verdict",
    "sk_reuseport_select",
    "sk_reuseport_select_or_migrate",
    "perf_event",
    "trace_kprobe_multi",
    "lsm_cgroup",
    "struct_ops",
    "netfilter",
    "tcx_ingress",
    "tcx_egress",
    "trace_uprobe_multi",
    "cgroup_unix_connect",
    "cgroup_unix_sendmsg",
    "cgroup_unix_recvmsg",
    "cgroup_unix_getpeername",
    "cgroup_unix_getsockname",
    "netkit_primary",
    "netkit_peer",
    "trace_kprobe_session",
    "trace_uprobe_session",
]

FIRST_MAP_FD = 1000
STANDARD_FDS = (0, 1, 2)  # open, and no maps
MAP_ADDRESS = 0xFFFF_8880_0000_0000
BPF_F_RDONLY_PROG = 0x80
LOG_TAIL = 8192

# struct fields of `btf_value` that the verifier must know -> names in MapInfo.btf_record
BTF_FIELDS = {
    "bpf_spin_lock": "spin_lock",
    "bpf_res_spin_lock": "res_spin_lock",
    "bpf_timer": "timer",
    "bpf_wq": "workqueue",
    "bpf_task_work": "task_work",
}


@dataclass
class Expectation:
    """What the kernel said under one privilege. ``log`` and ``reason`` are None where it was not recorded."""

    accepted: bool
    errno: int
    processed: int | None
    log: str | None = None
    reason: str | None = None


@dataclass
class Question:
    """One program under one privilege, and the kernel's answer."""

    id: str
    prog_type: str
    privilege: str
    expected: Expectation
    record: dict[str, Any] = field(repr=False)

    def request(self, log_level: int = 1) -> LoadRequest:
        return load_request(self.record, self.prog_type, self.privilege, log_level)


def read_records(path: str | Path) -> Iterator[dict[str, Any]]:
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt") as f:
        for line in f:
            if line.strip():
                yield json.loads(line)


# --- records -> requests ----------------------------------------------------------------------------------------


def map_spec(name: str, m: dict[str, Any]) -> MapSpec:
    """What BPF_MAP_CREATE would be told for a record's map."""
    inner = map_spec("", m["inner"]) if m.get("inner") else None
    kind = MapType[m["type"].upper()]
    return MapSpec(int(kind), m["key_size"], m["value_size"], m["max_entries"], m["map_flags"], name[:15], inner=inner)


def _btf_record(text: str) -> dict[str, int]:
    found = re.findall(r"(\w+) \w+@(\d+)", text)
    return {BTF_FIELDS[kind]: int(off) for kind, off in found if kind in BTF_FIELDS}


def _contents(m: dict[str, Any]) -> bytes:
    """The values of an array, one after the other."""
    values = {int.from_bytes(bytes.fromhex(k)[:4], "little"): bytes.fromhex(v) for k, v in (m.get("contents") or {}).items()}
    return b"".join(values.get(i, b"").ljust(m["value_size"], b"\0") for i in range(m["max_entries"]))


def map_info(name: str, m: dict[str, Any], number: int) -> MapInfo:
    """A map as the verifier sees it. Internal read-only maps are frozen, so their bytes are constants."""
    frozen = bool(m.get("internal")) and bool(m["map_flags"] & BPF_F_RDONLY_PROG)
    spec = map_spec(name, m)
    return MapInfo(
        spec,
        address=MAP_ADDRESS + (number << 12),
        frozen=frozen,
        contents=_contents(m) if frozen else None,
        inner=MapInfo(spec.inner) if spec.inner else None,
        btf_record=_btf_record(m.get("btf_value") or ""),
    )


def record_insns(record: dict[str, Any]) -> Program | None:
    if record.get("insns"):
        return decode(bytes.fromhex(record["insns"]))
    if record.get("insns_z"):
        return decode(zlib.decompress(base64.b64decode(record["insns_z"])))
    return None


POISONED_MAP = 2001000000  # libbpf's number for the first map of an object that was not created
AS_LOADED = "fuzz"  # records of verifier_fuzz.py: the kernel was given just these instructions
OLD_STYLE = "B"  # records of test_verifier.c's programs, whose maps had no names


def load_request(
    record: dict[str, Any], prog_type: str, privilege: str, log_level: int, map_fds: dict[str, int] | None = None
) -> LoadRequest:
    """``map_fds``: the descriptors by map name of real maps, made by root; else the loader made them, under numbers of ours."""
    insns = list(record_insns(record) or ())
    fds: dict[int, MapInfo | None] = dict.fromkeys(STANDARD_FDS)
    by_name = {}
    for number, (name, m) in enumerate((record.get("maps") or {}).items()):
        by_name[name] = map_fds[name] if map_fds else FIRST_MAP_FD + number
        info = fds[by_name[name]] = map_info(name if record.get("source") != OLD_STYLE else "", m, number)
        info.bypass_spec_v1 = True if map_fds else None
    for index, name, *_ in record.get("map_relocs") or []:
        insns[index] = insns[index]._replace(imm=by_name[name])
        if (
            privilege == "unpriv"
            and record.get("source") not in (OLD_STYLE, AS_LOADED)
            and not map_fds
            and _needs_privilege(fds[by_name[name]])
        ):
            insns[index] = insns[index + 1] = Instruction(BPF_JMP | BPF_CALL, imm=POISONED_MAP + list(by_name).index(name))
    attach = record.get("expected_attach_type")
    return LoadRequest(
        insns=tuple(insns),
        prog_type=PROG_TYPE_BY_NAME[prog_type],
        license_gpl=(record.get("license") or "GPL") in ("GPL", "GPL v2", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"),
        prog_flags=record.get("flags") or 0,
        expected_attach_type=ATTACH_TYPES.index(attach) if attach else 0,
        log_level=log_level,
        privileges=PRIVILEGES[privilege],
        fd_maps=fds,
        btf=bytes.fromhex(record.get("btf_bytes") or ""),
        func_info=tuple((off, kind) for off, kind in record.get("func_rows") or ()),
        line_info=tuple((a, b, c, d) for a, b, c, d in record.get("line_rows") or ()),
    )


def _needs_privilege(info: MapInfo | None) -> bool:
    """Whether an unprivileged process cannot create the map: the loader of C objects then puts an impossible call where the
    program names it."""
    return info is not None and bool(MAP_KINDS[info.spec.map_type].capability)


# --- records -> what the kernel said ----------------------------------------------------------------------------


def _expectation(said: dict[str, Any]) -> Expectation:
    log = said.get("log")
    reason = last_reason(log) if log is not None else said.get("msg")
    return Expectation(said["verdict"] == "accept", said["errno"], said.get("processed"), log, reason)


def questions(record: dict[str, Any]) -> Iterator[Question]:
    """One for each privilege the record answers; none where the verdict needs BTF that the record does not carry, or the
    program never reached the verifier."""
    if record.get("btf_needed") or not (record.get("insns") or record.get("insns_z")):
        return
    if "mode" in record:
        answers = {record["mode"]: record}
    else:
        answers = {"priv": record.get("kernel_nobtf") or record.get("kernel")}
        answers |= {name: record.get(name) for name in ("capbpf", "unpriv")}
    for privilege, said in answers.items():
        if said and said["verdict"] in ("accept", "reject"):
            yield Question(record["id"], record["prog_type"], privilege, _expectation(said), record)


# --- logs -------------------------------------------------------------------------------------------------------

_ADDRESS = re.compile(r"(\(18\) r\d+ = )0x[0-9a-f]{16}\b")


_FROM_BTF = re.compile(r"^(; .*|Global function .* doesn't return scalar\. .*)\n", re.MULTILINE)


def mask_addresses(log: str) -> str:
    """A kernel address in a LD_IMM64 becomes ADDR; a plain constant of 16 digits does too, on both sides."""
    return _ADDRESS.sub(r"\1ADDR", log)


def last_reason(log: str) -> str:
    """The last line that is not statistics: why the program was refused."""
    for line in reversed(log.splitlines()):
        if line.strip() and not line.startswith(("processed ", "verification time", "stack depth")):
            return mask_addresses(line)
    return ""


def same_log(ours: str, recorded: str) -> bool:
    """Whole-log agreement. A record of 8 KB or more is the end of the kernel's log.

    Lines that only the program's own BTF gave are left out: records do not carry it.
    """
    ours, whole = mask_addresses(ours), len(recorded) < LOG_TAIL
    recorded = _FROM_BTF.sub("", recorded)
    if whole:
        return ours == mask_addresses(recorded)
    _, _, recorded = recorded.partition("\n")  # the first line may be cut
    return ours.endswith(mask_addresses(recorded))


__all__ = [
    "SUPPORTED",
    "Expectation",
    "ProgType",
    "Question",
    "last_reason",
    "load_request",
    "mask_addresses",
    "questions",
    "read_records",
    "same_log",
]
