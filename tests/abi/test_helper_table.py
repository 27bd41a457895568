"""The helper table: whole, in order, and what the running kernel gives a socket filter."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from support.kernel import needs_kernel

from netbpf.abi import arg_types as at
from netbpf.abi.helpers import FUNC_IDS, HELPERS, MAX_FUNC_ID, HelperProto, helper_cap, helper_proto
from netbpf.abi.prog_types import ProgType
from netbpf.isa.builders import BPF_CALL_FUNC, BPF_EXIT_INSN, BPF_MOV64_IMM, assemble
from netbpf.isa.instruction import encode
from netbpf.verifier import state

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

HEADER = Path("/usr/include/linux/bpf.h")
CAPS = {"priv": {"", "CAP_BPF", "CAP_PERFMON"}, "capbpf": {"", "CAP_BPF"}, "unpriv": {""}}
ASKED = [
    *((ProgType.SOCKET_FILTER, privilege) for privilege in CAPS),
    *((ProgType.CGROUP_SKB, privilege) for privilege in CAPS),
    *((prog_type, privilege) for prog_type in (ProgType.SCHED_CLS, ProgType.XDP) for privilege in ("priv", "capbpf")),
]
SIZES = (at.ARG_CONST_SIZE, at.ARG_CONST_SIZE_OR_ZERO)


def test_numbers_are_whole() -> None:
    assert sorted(HELPERS) == list(range(MAX_FUNC_ID))
    assert {p.name: p.id for p in HELPERS.values()} == FUNC_IDS
    assert FUNC_IDS["map_lookup_elem"] == 1
    assert FUNC_IDS["cgrp_storage_delete"] == 211


@pytest.mark.skipif(not HEADER.exists(), reason="no linux/bpf.h here")
def test_names_are_the_headers() -> None:
    text = HEADER.read_text().partition("#define ___BPF_FUNC_MAPPER")[2]
    numbered = re.findall(r"FN\((\w+), (\d+),", text)
    assert numbered or "__BPF_FUNC_MAPPER" in HEADER.read_text()
    for name, number in numbered:
        assert FUNC_IDS[name] == int(number)


@pytest.mark.parametrize("proto", HELPERS.values(), ids=lambda p: p.name)
def test_row(proto: HelperProto) -> None:
    assert re.fullmatch(r"\d\.\d+", proto.since)
    assert len(proto.args) <= 5
    for i, kind in enumerate(proto.args):
        if kind in SIZES:
            assert proto.args[i - 1] & 0xFF == at.ARG_PTR_TO_MEM
    assert bool(proto.fixed_size) == any(kind & at.MEM_FIXED_SIZE for kind in proto.args)
    assert bool(proto.ret_btf) == (proto.ret_type & 0xFF == at.RET_PTR_TO_BTF_ID and proto.name != "kptr_xchg")


def test_releases_do_not_go_back() -> None:
    releases = [tuple(map(int, p.since.split("."))) for p in HELPERS.values()]
    assert releases == sorted(releases)


def test_flags_are_those_of_registers() -> None:
    for name in vars(at):
        if name.startswith(("MEM_", "PTR_", "OBJ_", "DYNPTR_")):
            assert getattr(at, name) == getattr(state, name), name


class TestKernel:
    """A bare call is refused for its first argument, or accepted, where the helper is there at all."""

    pytestmark = needs_kernel

    @pytest.mark.parametrize(("prog_type", "privilege"), ASKED)
    def test_same_helpers_and_arguments(self, prog_type: ProgType, privilege: str) -> None:
        from kernel_oracle import Oracle

        with Oracle([privilege]) as oracle:
            for proto in HELPERS.values():
                code = encode(assemble(BPF_CALL_FUNC(proto.id), BPF_MOV64_IMM(0, 0), BPF_EXIT_INSN()))
                _, log = oracle.ask(privilege, code, prog_type)
                given = "program of this type cannot use helper" not in log
                assert given == (helper_cap(prog_type, proto.id) in CAPS[privilege]), proto
                if given:
                    live = re.search(r"0: (\S{10}) \(85\)", log)
                    assert live is not None
                    assert sum(c != "." for c in live[1][1:6]) == len(helper_proto(prog_type, proto.id).args), (proto, live[1])
