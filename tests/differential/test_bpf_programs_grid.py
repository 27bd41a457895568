"""bpf(2) program commands, byte for byte: the simulator and the running kernel get the same attr and answer the same."""

from __future__ import annotations

import errno

import pytest
from support.both_hosts import both
from support.kernel import needs_kernel
from support.recorder import BAD, SOCKET_FILTER, Recorder
from support.sysctl import SYSCTL, unprivileged_bpf

from netbpf.abi import commands as abi
from netbpf.abi.commands import Cmd
from netbpf.errors import BpfError
from netbpf.host.sim.host import SimHost
from netbpf.isa import builders as b
from netbpf.isa.instruction import encode

pytestmark = needs_kernel
LOAD = Cmd.BPF_PROG_LOAD
REFUSED = encode(b.assemble(b.BPF_MOV64_REG(b.BPF_REG_0, b.BPF_REG_2), b.BPF_EXIT_INSN()))


def load(r: Recorder, label: str, code: bytes = SOCKET_FILTER, size: int | None = None, **fields: object) -> int:
    """BPF_PROG_LOAD of ``code`` with fields of one's own, closed again; out fields go to the log."""
    given = {"prog_type": 1, "insn_cnt": len(code) // 8, "insns": r.ptr(code), "license": r.ptr(b"GPL\0"), **fields}
    attr = r.attr(LOAD, **given)
    fd = r.call(label, LOAD, attr, size)
    if fd > 0:
        r.process.close(fd)
    if not int(given.get("log_level", 0)) & 4:  # statistics tell the time it took
        r.note("log_true_size", abi.PROG_LOAD.unpack(attr).log_true_size)
    return fd


def test_instruction_counts_and_pointers() -> None:
    def case(r: Recorder) -> None:
        for count in (0, 1, 2, 1_000_000, 1_000_001, 0x7FFF_FFFF, 0xFFFF_FFFF):
            load(r, f"count {count} at NULL", insn_cnt=count, insns=0)
        for name, address in {"null": 0, "bad": BAD, "top": 2**64 - 8}.items():
            load(r, f"insns {name}", insns=address)
            load(r, f"license {name}", license=address)
            load(r, f"log {name}", log_level=1, log_size=4096, log_buf=address)

    both(case)


@pytest.mark.parametrize("field", [f for f in abi.ProgLoadAttr._fields if f not in ("insns", "license", "insn_cnt")])
def test_fields_one_by_one(field: str) -> None:
    def case(r: Recorder) -> None:
        values: tuple[object, ...] = (1, 2, 3, 0x10, 0x7FFF_FFFF)
        if field == "prog_name":
            values = (b"a", b"a b", b"x" * 16, b"\xff", b"\xd7")
        if field == "prog_flags":
            values = tuple(1 << bit for bit in range(32))
        for value in values:
            load(r, f"{field}={value!r}", **{field: value})

    both(case)


def test_log_settings() -> None:
    """level x size x buffer."""

    def case(r: Recorder) -> None:
        for code, kind in ((SOCKET_FILTER, "accepted"), (REFUSED, "refused")):
            for level in (0, 1, 2, 4, 5, 6, 7, 8, 9, 12, 16, 0x80000000):
                for size in (0, 1, 2, 16, 127, 128, 4096, 0x3FFFFFFF, 0x40000000):
                    for place in ("null", "bad", "good"):
                        room = r.buffer(4096)
                        address = {"null": 0, "bad": BAD, "good": _address(room)}[place]
                        if place == "good" and size > 4096:
                            continue
                        load(
                            r, f"{kind} level {level} size {size} {place}", code, log_level=level, log_size=size, log_buf=address
                        )
                        if level & 3 == 1 and not level & 4:
                            r.note("log", room.raw[: min(size, 4096)].rstrip(b"\0"))

    both(case)


def _address(room: object) -> int:
    import ctypes

    return ctypes.addressof(room)  # type: ignore[arg-type]


def test_log_true_size_needs_a_long_attr() -> None:
    def case(r: Recorder) -> None:
        for size in (40, 48, 72, 139, 140, 143, 144, 148, 152, 168):
            load(r, f"size {size}", size=size, log_level=1, log_size=4096, log_buf=r.ptr(4096))

    both(case)


def test_license_gates_helpers() -> None:
    """bpf_trace_printk is for GPL programs; the strings that count as GPL."""
    code = encode(
        b.assemble(
            b.BPF_ST_MEM(b.BPF_DW, b.BPF_REG_10, -8, 0),
            b.BPF_MOV64_REG(b.BPF_REG_1, b.BPF_REG_10),
            b.BPF_ALU64_IMM(b.BPF_ADD, b.BPF_REG_1, -8),
            b.BPF_MOV64_IMM(b.BPF_REG_2, 8),
            b.BPF_CALL_FUNC(b.BPF_FUNC_trace_printk),
            b.BPF_MOV64_IMM(b.BPF_REG_0, 0),
            b.BPF_EXIT_INSN(),
        )
    )

    def case(r: Recorder) -> None:
        names = "GPL|GPL v2|GPL and additional rights|Dual BSD/GPL|Dual MIT/GPL|Dual MPL/GPL|BSD|MIT|gpl|GPL |GPLv2||Proprietary"
        for name in names.split("|"):
            load(r, repr(name), code, license=r.ptr(name.encode() + b"\0"))
        load(r, "unterminated", code, license=r.ptr(b"G" * 200))
        load(r, "GPL then rubbish", code, license=r.ptr(b"GPL\0zzzz"))

    both(case)


CAPS = {
    "none": frozenset[str](),
    "bpf": frozenset({"CAP_BPF"}),
    "bpf+net": frozenset({"CAP_BPF", "CAP_NET_ADMIN"}),
    "bpf+perfmon": frozenset({"CAP_BPF", "CAP_PERFMON"}),
    "net": frozenset({"CAP_NET_ADMIN"}),
    "sys_admin": frozenset({"CAP_SYS_ADMIN"}),
    "net_raw": frozenset({"CAP_NET_RAW"}),
}


@pytest.mark.parametrize("disabled", [0, 2])
@pytest.mark.parametrize("caps", CAPS)
def test_capabilities(caps: str, disabled: int) -> None:
    """Map types, program types, ids: who may."""
    if SYSCTL.read_text().strip() == "1":
        pytest.skip("kernel.unprivileged_bpf_disabled is 1 for good")

    def case(r: Recorder) -> None:
        for prog_type in (1, 3, 4, 6, 8):  # those the simulator verifies
            load(r, f"prog type {prog_type}", prog_type=prog_type)
        load(r, "too long", insn_cnt=4097, insns=0)
        for map_type, key, value, flags in (
            (1, 4, 4, 0),
            (2, 4, 4, 0),
            (5, 4, 8, 0),
            (9, 4, 4, 0),
            (11, 8, 4, 1),
            (22, 0, 4, 0),
            (1, 0, 0, 0),
        ):
            fields = {"map_type": map_type, "key_size": key, "value_size": value, "max_entries": 1, "map_flags": flags}
            r.do(f"map type {map_type} key {key}", Cmd.BPF_MAP_CREATE, **fields)
        for cmd in (Cmd.BPF_PROG_GET_NEXT_ID, Cmd.BPF_MAP_GET_NEXT_ID):
            r.do(f"{cmd.name} at the top", cmd, id=0x7FFF_FFFE)
            r.do(f"{cmd.name} above it", cmd, id=0x7FFF_FFFF)
        for cmd in (Cmd.BPF_PROG_GET_FD_BY_ID, Cmd.BPF_MAP_GET_FD_BY_ID, Cmd.BPF_BTF_GET_FD_BY_ID):
            r.do(f"{cmd.name} of none", cmd, id=0x7FFF_0000)

    with unprivileged_bpf(disabled):
        both(case, caps=CAPS[caps], sim=SimHost(unprivileged_bpf_disabled=disabled))


def test_attach_types() -> None:
    def case(r: Recorder) -> None:
        for prog_type in (1, 3, 6, 8, 9, 18, 21, 25, 30):
            for attach_type in range(60):
                given = {"prog_type": prog_type, "expected_attach_type": attach_type, "insns": r.ptr(SOCKET_FILTER)}
                # a count too large to be verified is refused after the check of types on neither host: look at EINVAL only
                attr = r.attr(LOAD, insn_cnt=2, license=r.ptr(b"GPL\0"), log_level=16, **given)
                r.call(f"type {prog_type} attach {attach_type}", LOAD, attr)

    both(case)


def test_map_references() -> None:
    """What a program's map reference may be: a descriptor that is none, one of another kind, an index."""

    def case(r: Recorder) -> None:
        prog, fd = r.make_prog(), r.make_map()
        table = b"".join(n.to_bytes(4, "little", signed=True) for n in (fd, prog, -1, 9999, 0))
        arrays = {
            "none": (0, 0),
            "bad": (BAD, 0),
            "good": (r.ptr(table), 0),
            "counted": (r.ptr(table), 1),
            "overcounted": (r.ptr(table), 2),
        }
        for source, numbers in {
            1: (fd, prog, 0, 9999, -1),
            2: (fd, prog, 0, 9999, -1),
            5: range(5),
            6: (1, 2, 3, 4),
            7: (0,),
            0: (0,),
        }.items():
            for number in numbers:
                code = encode(
                    b.assemble(
                        b.BPF_LD_IMM64_RAW_FULL(b.BPF_REG_1, source, 0, 0, number, 0),
                        b.BPF_MOV64_IMM(b.BPF_REG_0, 0),
                        b.BPF_EXIT_INSN(),
                    )
                )
                name = {fd: "map", prog: "prog"}.get(number, str(number)) if source < 3 else str(number)
                for place, (array, cnt) in arrays.items():
                    load(r, f"src {source} {name} array {place}", code, fd_array=array, fd_array_cnt=cnt)

    both(case)


def test_test_run_arguments() -> None:
    """data x ctx x sizes x flags."""
    frame = bytes(12) + b"\x08\x00" + bytes(100)

    def case(r: Recorder) -> None:
        prog = r.make_prog()
        for size in (0, 1, 13, 14, 33, 34, 60, 114, 3000, 3520, 3584, 3700, 4096, 5000):
            data = r.ptr((frame + bytes(6000))[: max(size, 1)])
            for ethertype in (b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\0\x10"):
                data = r.ptr((bytes(12) + ethertype + bytes(6000))[: max(size, 1)])
                run(r, f"size {size} {ethertype.hex()}", prog_fd=prog, data_in=data, data_size_in=size)
        for name, data in {"null": 0, "bad": BAD}.items():
            run(r, f"data {name}", prog_fd=prog, data_in=data, data_size_in=60)
        for room in (0, 1, 14, 113, 114, 200):
            for out in (0, BAD, r.ptr(200)):
                label = f"out room {room} {'null' if not out else 'bad' if out == BAD else 'good'}"
                run(r, label, prog_fd=prog, data_in=r.ptr(frame), data_size_in=114, data_out=out, data_size_out=room)
        for flags in (1, 2, 4, 8):
            run(r, f"flags {flags}", prog_fd=prog, data_in=r.ptr(frame), data_size_in=114, flags=flags)
        run(r, "cpu", prog_fd=prog, data_in=r.ptr(frame), data_size_in=114, cpu=1)
        run(r, "batch", prog_fd=prog, data_in=r.ptr(frame), data_size_in=114, batch_size=1)
        run(r, "repeat", prog_fd=prog, data_in=r.ptr(frame), data_size_in=114, repeat=3)
        run(r, "no program", prog_fd=9999, data_in=r.ptr(frame), data_size_in=114)
        run(r, "a map", prog_fd=r.make_map(), data_in=r.ptr(frame), data_size_in=114)

    both(case)


def run(r: Recorder, label: str, **fields: int) -> None:
    attr = r.attr(Cmd.BPF_PROG_TEST_RUN, **fields)
    r.call(label, Cmd.BPF_PROG_TEST_RUN, attr)
    out = abi.TEST_RUN.unpack(attr)
    r.note("out", (out.retval, out.data_size_out, out.ctx_size_out))


def test_test_run_context() -> None:
    """Every byte of __sk_buff in turn, and what comes back."""
    frame = bytes(12) + b"\x08\x00" + bytes(100)

    def case(r: Recorder) -> None:
        prog = r.make_prog()
        data = r.ptr(frame)
        for at in range(192):
            for value in (1, 0xFF):
                ctx, out = bytearray(192), r.buffer(192)
                ctx[at] = value
                fields = {"ctx_in": r.ptr(bytes(ctx)), "ctx_size_in": 192, "ctx_out": _address(out), "ctx_size_out": 192}
                run(r, f"byte {at} = {value}", prog_fd=prog, data_in=data, data_size_in=114, **fields)
                r.note("ctx", out.raw.hex())
        for size in (0, 1, 8, 40, 191, 192, 193, 200, 4096, 4097):
            for tail in (0, 1):
                fields = {"ctx_in": r.ptr(bytes(max(size - 1, 0)) + bytes([tail])), "ctx_size_in": size}
                run(r, f"ctx size {size} tail {tail}", prog_fd=prog, data_in=data, data_size_in=114, **fields)
            room = r.buffer(b"\xaa" * 200)
            fields = {"ctx_out": _address(room), "ctx_size_out": min(size, 200)}
            run(r, f"ctx out {size}", prog_fd=prog, data_in=data, data_size_in=114, **fields)
            r.note("ctx", room.raw.hex())
        for place in (0, BAD):
            run(r, f"ctx in at {place}", prog_fd=prog, data_in=data, data_size_in=114, ctx_in=place, ctx_size_in=192)
            run(r, f"ctx out at {place}", prog_fd=prog, data_in=data, data_size_in=114, ctx_out=place, ctx_size_out=192)

    both(case)


def test_info_lengths() -> None:
    """BPF_OBJ_GET_INFO_BY_FD of a map and a program: lengths, tails, bad addresses; what is told of a map in full."""

    def case(r: Recorder) -> None:
        fds = {"map": r.make_map(1, 4, 8, 4, 1 << 6), "prog": r.make_prog()}
        for kind, fd in fds.items():
            for length in (0, 1, 8, 40, 88, 103, 104, 120, 231, 232, 233, 240, 4096, 4097):
                for tail in (0, 1):
                    room = r.buffer(8192)
                    room[max(length - 1, 0)] = bytes([tail])
                    attr = r.attr(Cmd.BPF_OBJ_GET_INFO_BY_FD, bpf_fd=fd, info_len=length, info=_address(room))
                    r.call(f"{kind} length {length} tail {tail}", Cmd.BPF_OBJ_GET_INFO_BY_FD, attr)
                    r.note("info_len", abi.INFO.unpack(attr).info_len)
            for address in (0, BAD):
                r.do(f"{kind} at {address}", Cmd.BPF_OBJ_GET_INFO_BY_FD, bpf_fd=fd, info_len=104, info=address)
        r.note("map", r.process.map_info(fds["map"])._replace(id=0))
        info = r.process.prog_info(fds["prog"])
        kept = (
            "type",
            "tag",
            "xlated_prog_len",
            "created_by_uid",
            "nr_map_ids",
            "name",
            "gpl_compatible",
            "btf_id",
            "verified_insns",
            "run_cnt",
        )
        r.note("prog", {name: getattr(info, name) for name in kept})

    both(case)


def test_tags_of_programs() -> None:
    """The tag is a digest of the instructions in which descriptors of maps count as zero."""

    def case(r: Recorder) -> None:
        for spare in range(3):
            extra = [r.make_map() for _ in range(spare)]
            fd = r.make_map()
            code = b.assemble(b.BPF_LD_MAP_FD(b.BPF_REG_1, fd), b.BPF_MOV64_IMM(b.BPF_REG_0, spare % 2), b.BPF_EXIT_INSN())
            prog = r.process.prog_load(code)
            r.note(f"tag {spare}", r.process.prog_info(prog).tag.hex())
            r.note("maps", [i == r.process.map_info(fd).id for i in r.process.prog_map_ids(prog)])
            for made in extra:
                r.process.close(made)

    both(case)


def test_ids_and_descriptors() -> None:
    def case(r: Recorder) -> None:
        p = r.process
        fd, prog = r.make_map(), r.make_prog()
        map_id, prog_id = p.map_info(fd).id, p.prog_info(prog).id
        r.note("next finds it", (p.map_get_next_id(map_id - 1) == map_id, p.prog_get_next_id(prog_id - 1) == prog_id))
        again = p.map_get_fd_by_id(map_id)
        r.note("same map", p.map_info(again).id == map_id)
        p.map_update_elem(fd, bytes(4), bytes(8))
        p.close(fd)
        r.note("lives on", p.map_lookup_elem(again, bytes(4)))
        for flags in (1, 2, 8, 16, 24, 32):
            r.do(f"open flags {flags}", Cmd.BPF_MAP_GET_FD_BY_ID, id=map_id, open_flags=flags)
        p.close(again)
        r.do("gone after the last close", Cmd.BPF_MAP_GET_FD_BY_ID, id=0x7000_0000)
        copy = p.dup(prog)
        p.close(prog)
        r.note("dup keeps it", p.prog_info(copy).id == prog_id)
        p.close(copy)
        r.do("program gone", Cmd.BPF_PROG_GET_FD_BY_ID, id=prog_id)

    both(case)


def test_a_program_holds_its_maps() -> None:
    def case(r: Recorder) -> None:
        p = r.process
        fd, bound = r.make_map(), r.make_map()
        ids = [p.map_info(fd).id, p.map_info(bound).id]
        code = b.assemble(b.BPF_LD_MAP_FD(b.BPF_REG_1, fd), b.BPF_MOV64_IMM(b.BPF_REG_0, 0), b.BPF_EXIT_INSN())
        prog = p.prog_load(code)
        r.do("bind", Cmd.BPF_PROG_BIND_MAP, prog_fd=prog, map_fd=bound)
        r.do("bind again", Cmd.BPF_PROG_BIND_MAP, prog_fd=prog, map_fd=bound)
        r.do("bind with flags", Cmd.BPF_PROG_BIND_MAP, prog_fd=prog, map_fd=bound, flags=1)
        r.do("bind a program", Cmd.BPF_PROG_BIND_MAP, prog_fd=prog, map_fd=prog)
        r.do("bind to a map", Cmd.BPF_PROG_BIND_MAP, prog_fd=fd, map_fd=bound)
        r.note("maps", [i in ids for i in p.prog_map_ids(prog)])
        p.close(fd)
        p.close(bound)
        for i in ids:
            p.close(p.map_get_fd_by_id(i))
        p.close(prog)
        r.note("closed", [_is_gone(p, i) for i in ids])

    both(case)


def _is_gone(process: object, map_id: int) -> bool:
    """The kernel frees a program a moment after its last close."""
    import time

    for _ in range(200):
        try:
            process.close(process.map_get_fd_by_id(map_id))  # type: ignore[attr-defined]
        except BpfError as e:
            return e.errno == errno.ENOENT
        time.sleep(0.01)
    return False
