"""A simulated process: descriptors, lifetimes, capabilities, the Python methods. No ctypes, no privilege, no kernel."""

from __future__ import annotations

import errno
import struct

import pytest
from support.packet_grid import counting

from netbpf.abi.commands import (
    ATTR_BYTES,
    COMMANDS,
    MAP_CREATE,
    MAP_ELEM,
    PROG_LOAD,
    Cmd,
    MapCreateAttr,
    MapElemAttr,
    ProgLoadAttr,
)
from netbpf.env import SteppedEnv
from netbpf.errors import BpfError, ProgramRejected
from netbpf.host.memory import Buffers
from netbpf.host.sim.host import SimHost
from netbpf.host.sim.process import SimProcess
from netbpf.host.sim.syscall import MODULE_OF, handler_of
from netbpf.isa import builders as b
from netbpf.isa.instruction import encode
from netbpf.maps.spec import MapSpec

HASH = MapSpec(1, 4, 8, 2, name="counts")
ARRAY = MapSpec(2, 4, 4, 1)
RETURN_0 = b.assemble(b.BPF_MOV64_IMM(b.BPF_REG_0, 0), b.BPF_EXIT_INSN())
UNINITIALISED = b.assemble(b.BPF_MOV64_REG(b.BPF_REG_0, b.BPF_REG_2), b.BPF_EXIT_INSN())


def key(n: int) -> bytes:
    return struct.pack("<I", n)


def uses(map_fd: int) -> object:
    return b.assemble(b.BPF_LD_MAP_FD(b.BPF_REG_1, map_fd), b.BPF_MOV64_IMM(b.BPF_REG_0, 0), b.BPF_EXIT_INSN())


@pytest.fixture
def host() -> SimHost:
    return SimHost(env=SteppedEnv(), n_cpus=2)


@pytest.fixture
def process(host: SimHost) -> SimProcess:
    return host.process()


def test_every_command_of_the_table_is_answered(process: SimProcess) -> None:
    """No command is known by its attr alone: each has a body that looks at it."""
    assert set(MODULE_OF) == set(COMMANDS)
    assert all(callable(handler_of(Cmd(cmd))) for cmd in COMMANDS)


# --- the manual page's errnos ---------------------------------------------------------------------------------------------
def fails(errno_value: int, call: object, *args: object, **kwargs: object) -> None:
    with pytest.raises(BpfError) as caught:
        call(*args, **kwargs)  # type: ignore[operator]
    assert caught.value.errno == errno_value, caught.value


def test_errno_of_every_kind_the_page_names(host: SimHost, process: SimProcess) -> None:
    fd = process.map_create(HASH)
    nobody = host.process(caps=frozenset())
    fails(errno.EPERM, nobody.map_create, HASH)
    fails(errno.EPERM, nobody.prog_load, RETURN_0)
    fails(errno.ENOMEM, SimHost(memory_bytes=4096).process().map_create, MapSpec(2, 4, 4096, 100))
    fails(errno.EBADF, process.map_lookup_elem, 99, key(1))
    fails(errno.EINVAL, process.bpf, 1000, bytearray(ATTR_BYTES))
    fails(errno.EINVAL, process.map_create, MapSpec(99, 4, 4, 1))
    fails(errno.EINVAL, process.map_create, MapSpec(1, 0, 4, 1))
    fails(errno.EINVAL, process.prog_load, b.assemble(b.BPF_JMP_A(-1)))
    fails(errno.EACCES, process.prog_load, UNINITIALISED)
    fails(errno.ENOENT, process.map_lookup_elem, fd, key(1))
    fails(errno.ENOENT, process.map_delete_elem, fd, key(1))
    fails(errno.ENOENT, process.map_update_elem, fd, key(1), bytes(8), 2)
    process.map_update_elem(fd, key(1), bytes(8))
    fails(errno.EEXIST, process.map_update_elem, fd, key(1), bytes(8), 1)
    process.map_update_elem(fd, key(2), bytes(8))
    fails(errno.E2BIG, process.map_update_elem, fd, key(3), bytes(8))
    fails(errno.E2BIG, process.prog_load, RETURN_0 * 500_001)
    fails(errno.EINVAL, process.map_update_elem, fd, b"\1", bytes(8))
    fails(errno.EINVAL, process.map_update_elem, fd, key(1), bytes(7))


def test_unused_bytes_must_be_zero(process: SimProcess) -> None:
    fd = process.map_create(HASH)
    for cmd, row in COMMANDS.items():
        if row.form is not MAP_ELEM:
            continue
        attr = MAP_ELEM.pack(MapElemAttr(fd)) + bytes(8)
        attr[row.used_bytes] = 1
        fails(errno.EINVAL, process.bpf, cmd, attr[:ATTR_BYTES])


def test_addresses_of_a_registered_memory(host: SimHost) -> None:
    """Without real addresses: buffers registered in a table; everything else is EFAULT."""
    memory = Buffers()
    process = host.process(memory=memory)
    fd = process.bpf(Cmd.BPF_MAP_CREATE, MAP_CREATE.pack(MapCreateAttr(1, 4, 8, 2)))
    value = bytearray(8)
    at_key, at_value = memory.put(key(6)), memory.register(value)
    assert process.bpf(Cmd.BPF_MAP_UPDATE_ELEM, MAP_ELEM.pack(MapElemAttr(fd, at_key, memory.put(b"12345678")))) == 0
    assert process.bpf(Cmd.BPF_MAP_LOOKUP_ELEM, MAP_ELEM.pack(MapElemAttr(fd, at_key, at_value))) == 0
    assert value == b"12345678"
    for bad in (0, 1, at_value + 1, 1 << 63, (1 << 64) - 1):
        fails(errno.EFAULT, process.bpf, Cmd.BPF_MAP_LOOKUP_ELEM, MAP_ELEM.pack(MapElemAttr(fd, at_key, bad)))
        if bad != at_value + 1:
            fails(errno.EFAULT, process.bpf, Cmd.BPF_MAP_LOOKUP_ELEM, MAP_ELEM.pack(MapElemAttr(fd, bad, at_value)))
    attr = MAP_ELEM.pack(MapElemAttr(fd, at_key, at_value))
    assert process.bpf(Cmd.BPF_MAP_LOOKUP_ELEM, memory.register(attr), len(attr)) == 0
    fails(errno.EFAULT, process.bpf, Cmd.BPF_MAP_LOOKUP_ELEM, 8, 32)


def test_out_fields_come_back_in_the_attr(process: SimProcess) -> None:
    fd = process.map_create(HASH)
    attr = bytearray(ATTR_BYTES)
    assert process.bpf(Cmd.BPF_MAP_GET_NEXT_ID, attr) == 0
    assert struct.unpack_from("<I", attr, 4)[0] == process.map_info(fd).id
    fails(errno.EFAULT, process.bpf, Cmd.BPF_MAP_GET_NEXT_ID, bytearray(4))


# --- descriptors and lifetimes ----------------------------------------------------------------------------------------------
def test_lowest_free_number(process: SimProcess) -> None:
    fds = [process.map_create(ARRAY) for _ in range(4)]
    assert fds == [3, 4, 5, 6]
    process.close(5)
    process.close(3)
    assert process.dup(4) == 3
    assert process.prog_load(RETURN_0) == 5
    assert process.fds() == [0, 1, 2, 3, 4, 5, 6]
    fails(errno.EBADF, process.close, 7)
    fails(errno.EBADF, process.dup, -1)


def test_no_more_than_the_limit(host: SimHost) -> None:
    process = host.process(nofile=5)
    process.map_create(ARRAY)
    process.map_create(ARRAY)
    fails(errno.EMFILE, process.map_create, ARRAY)
    fails(errno.EMFILE, process.dup, 3)
    assert len(host.map_ids()) == 2


def test_a_map_goes_with_its_last_descriptor(host: SimHost, process: SimProcess) -> None:
    fd = process.map_create(HASH)
    copy = process.dup(fd)
    process.close(fd)
    process.map_update_elem(copy, key(1), bytes(8))
    assert len(host.map_ids()) == 1
    process.close(copy)
    assert host.map_ids() == []


def test_a_program_holds_its_maps_until_it_is_unloaded(host: SimHost, process: SimProcess) -> None:
    fd = process.map_create(HASH)
    prog = process.prog_load(uses(fd))
    map_id = process.map_info(fd).id
    process.close(fd)
    assert host.map_ids() == [map_id]
    assert process.prog_map_ids(prog) == (map_id,)
    again = process.map_get_fd_by_id(map_id)
    process.close(prog)
    assert host.map_ids() == [map_id]
    process.close(again)
    assert host.map_ids() == []
    assert host.prog_ids() == []


def test_an_attached_program_lives_while_the_socket_does(host: SimHost, process: SimProcess) -> None:
    fd = process.map_create(HASH)
    process.map_update_elem(fd, key(0), bytes(8))
    prog = process.prog_load(counting(fd))
    sock = process.socket(17, 3, 0)
    sock.bind(("lo", 3))
    sock.setsockopt(1, 50, prog)
    process.close(prog)
    host.device("lo").transmit(bytes(60))
    assert process.map_lookup_elem(fd, key(0)) == struct.pack("<Q", 2)
    sock.close()
    assert host.prog_ids() == []
    host.device("lo").transmit(bytes(60))
    assert process.map_lookup_elem(fd, key(0)) == struct.pack("<Q", 2)


def test_a_process_that_ends_drops_everything(host: SimHost) -> None:
    with host.process() as process:
        prog = process.prog_load(uses(process.map_create(HASH)))
        process.socket(17, 3, 0x300).setsockopt(1, 50, prog)
        child = process.fork()
        alive = (host.map_ids(), host.prog_ids())
    assert (host.map_ids(), host.prog_ids()) == alive == ([1], [1]), "the child still has them"
    child.exit()
    child.exit()
    assert host.map_ids() == host.prog_ids() == []
    fails(errno.ESRCH, child.map_create, HASH)


def test_a_descriptor_passed_to_another_process(host: SimHost, process: SimProcess) -> None:
    fd = process.map_create(HASH)
    process.map_update_elem(fd, key(1), b"abcdefgh")
    other = host.process(caps=frozenset())
    theirs = process.send_fd(fd, other)
    process.exit()
    assert other.map_lookup_elem(theirs, key(1)) == b"abcdefgh"
    fails(errno.EPERM, other.map_get_next_id)


def test_pins_outlive_processes(host: SimHost) -> None:
    with host.process() as process:
        process.obj_pin("/sys/fs/bpf/m", process.map_create(HASH))
        fails(errno.EEXIST, process.obj_pin, "/sys/fs/bpf/m", 3)
    with host.process() as process:
        fd = process.obj_get("/sys/fs/bpf/m")
        process.map_update_elem(fd, key(1), bytes(8))
        read_only = process.obj_get("/sys/fs/bpf/m", 8)
        fails(errno.EPERM, process.map_update_elem, read_only, key(1), bytes(8))
    host.unlink("/sys/fs/bpf/m")
    assert host.map_ids() == []


def test_ids_are_not_given_again(host: SimHost, process: SimProcess) -> None:
    seen = []
    for _ in range(3):
        fd = process.map_create(ARRAY)
        seen.append(process.map_info(fd).id)
        process.close(fd)
    assert seen == [1, 2, 3]
    fails(errno.ENOENT, process.map_get_next_id)


def test_two_arrays_of_programs_do_not_keep_each_other(host: SimHost, process: SimProcess) -> None:
    fd = process.map_create(MapSpec(3, 4, 4, 2))
    prog = process.prog_load(uses(fd))
    process.map_update_elem(fd, key(0), struct.pack("<I", prog))
    assert process.map_lookup_elem(fd, key(0)) == struct.pack("<I", process.prog_info(prog).id)
    fails(errno.EBADF, process.map_update_elem, fd, key(1), struct.pack("<I", 99))
    fails(errno.EINVAL, process.map_update_elem, fd, key(1), struct.pack("<I", fd))
    process.close(prog)
    assert host.prog_ids()
    process.close(fd)
    assert host.prog_ids() == host.map_ids() == []


def test_maps_of_maps_hold_what_is_in_them(host: SimHost, process: SimProcess) -> None:
    outer = process.map_create(MapSpec(12, 4, 4, 2, inner=ARRAY))
    inner = process.map_create(ARRAY)
    assert len(host.map_ids()) == 2, "the template is dropped"
    process.map_update_elem(outer, key(1), struct.pack("<I", inner))
    inner_id = process.map_info(inner).id
    process.close(inner)
    assert inner_id in host.map_ids()
    assert process.map_lookup_elem(outer, key(1)) == struct.pack("<I", inner_id)
    other = process.map_create(MapSpec(2, 4, 8, 1))
    fails(errno.EINVAL, process.map_update_elem, outer, key(1), struct.pack("<I", other))
    process.map_delete_elem(outer, key(1))
    assert inner_id not in host.map_ids()


# --- privilege ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("disabled", "allowed"), [(0, True), (1, False), (2, False)])
def test_unprivileged_bpf_disabled(disabled: int, allowed: bool) -> None:
    process = SimHost(unprivileged_bpf_disabled=disabled).process(caps=frozenset())
    for call, args in ((process.map_create, (HASH,)), (process.prog_load, (RETURN_0,))):
        if allowed:
            assert call(*args) > 2  # type: ignore[operator]
        else:
            fails(errno.EPERM, call, *args)
    fails(errno.EPERM, process.map_create, MapSpec(9, 4, 4, 1))
    fails(errno.EPERM, process.prog_load, RETURN_0, prog_type=3)
    fails(errno.EPERM, process.map_get_fd_by_id, 1)


def test_dropping_capabilities(host: SimHost, process: SimProcess) -> None:
    fd = process.map_create(HASH)
    process.drop_caps("CAP_SYS_ADMIN")
    process.map_create(HASH)  # CAP_BPF is left
    process.drop_caps()
    fails(errno.EPERM, process.map_create, HASH)
    with pytest.raises(PermissionError):
        process.socket(17, 3, 0)
    process.map_update_elem(fd, key(1), bytes(8))  # a descriptor is enough


def test_licence_gates_gpl_helpers(process: SimProcess) -> None:
    trace = b.assemble(
        b.BPF_ST_MEM(b.BPF_DW, b.BPF_REG_10, -8, 0),
        b.BPF_MOV64_REG(b.BPF_REG_1, b.BPF_REG_10),
        b.BPF_ALU64_IMM(b.BPF_ADD, b.BPF_REG_1, -8),
        b.BPF_MOV64_IMM(b.BPF_REG_2, 8),
        b.BPF_CALL_FUNC(b.BPF_FUNC_trace_printk),
        b.BPF_MOV64_IMM(b.BPF_REG_0, 0),
        b.BPF_EXIT_INSN(),
    )
    fd = process.prog_load(trace, license="Dual BSD/GPL")
    assert process.prog_info(fd).gpl_compatible
    with pytest.raises(ProgramRejected) as caught:
        process.prog_load(trace, license="Proprietary")
    assert "GPL" in caught.value.log
    assert process.prog_info(process.prog_load(RETURN_0, license="MIT")).gpl_compatible == 0


# --- logs ---------------------------------------------------------------------------------------------------------------------
def test_a_refused_load_tells_why(process: SimProcess) -> None:
    with pytest.raises(ProgramRejected) as caught:
        process.prog_load(UNINITIALISED)
    assert "R2 !read_ok" in caught.value.log
    assert "R2 !read_ok" in str(caught.value)
    assert process.fds() == [0, 1, 2]


def test_log_levels_of_an_accepted_load(process: SimProcess) -> None:
    logs = [process.load_log(process.prog_load(RETURN_0, log_level=level)) for level in (0, 1, 2, 4)]
    assert logs[0] == ""
    assert "processed 2 insns" in logs[1]
    assert "0: (b7) r0 = 0" in logs[2]
    assert logs[3].startswith("verification time")
    assert "stack depth 0" in logs[3]


def load_with_log(process: SimProcess, level: int, size: int) -> tuple[int, bytes, int]:
    """errno, what is in the buffer, log_true_size."""
    memory = process.memory
    assert isinstance(memory, Buffers)
    room = bytearray(4096)
    code = encode(RETURN_0)
    row = ProgLoadAttr(1, 2, memory.put(code), memory.put(b"GPL\0"), level, size, memory.register(room))
    attr = PROG_LOAD.pack(row)
    try:
        process.bpf(Cmd.BPF_PROG_LOAD, attr)
        error = 0
    except BpfError as e:
        error = e.errno or 0
    return error, bytes(room), PROG_LOAD.unpack(attr).log_true_size


def test_a_log_that_does_not_fit(host: SimHost) -> None:
    process = host.process(memory=Buffers())
    error, whole, true_size = load_with_log(process, 2, 4096)
    log = whole[: whole.index(0)]
    assert (error, true_size) == (0, len(log) + 1)
    assert load_with_log(process, 2, true_size)[0] == 0
    error, tail, told = load_with_log(process, 2, true_size - 1)
    assert (error, told) == (errno.ENOSPC, true_size)
    assert tail[: true_size - 1] == log[1:] + b"\0", "the end is kept"
    error, head, _ = load_with_log(process, 2 | 8, 40)
    assert error == errno.ENOSPC
    assert head[:40] == log[:39] + b"\0", "BPF_LOG_FIXED keeps the beginning"


# --- what a program did ---------------------------------------------------------------------------------------------------------
def test_test_run_pulls_the_ethernet_header(process: SimProcess) -> None:
    byte_0 = b.assemble(b.BPF_MOV64_REG(b.BPF_REG_6, b.BPF_REG_1), b.BPF_LD_ABS(b.BPF_B, 0), b.BPF_EXIT_INSN())
    ran = process.prog_test_run(process.prog_load(byte_0), bytes(12) + b"\x08\0" + bytes(range(0x45, 0x45 + 40)))
    assert ran.retval == 0x45
    assert ran.data_out[:14] == bytes(14)


def test_map_items_and_batches_agree(process: SimProcess) -> None:
    fd = process.map_create(MapSpec(1, 4, 8, 100))
    items = {key(i): struct.pack("<Q", i * i) for i in range(60)}
    assert process.map_update_batch(fd, list(items.items())) == 60
    assert dict(process.map_items(fd)) == items
    found: dict[bytes, bytes] = {}
    token, ended = b"", False
    while not ended:
        piece, token, ended = process.map_lookup_batch(fd, 16, token)
        found.update(piece)
    assert found == items
    assert process.map_delete_batch(fd, list(items)[:10]) == 10
    assert len(list(process.map_items(fd))) == 50


def test_per_cpu_values_are_all_cpus_copies(process: SimProcess) -> None:
    fd = process.map_create(MapSpec(6, 4, 4, 1))
    process.map_update_elem(fd, key(0), struct.pack("<IxxxxIxxxx", 7, 9))
    assert process.map_lookup_elem(fd, key(0)) == struct.pack("<IxxxxIxxxx", 7, 9)


def test_freezing(process: SimProcess) -> None:
    fd = process.map_create(ARRAY)
    process.map_freeze(fd)
    fails(errno.EPERM, process.map_update_elem, fd, key(0), bytes(4))
    assert process.map_lookup_elem(fd, key(0)) == bytes(4)
