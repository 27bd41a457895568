"""bpf(2) map commands, byte for byte: the simulator and the running kernel get the same attr and answer the same."""

from __future__ import annotations

import pytest
from support.both_hosts import both
from support.kernel import needs_kernel
from support.recorder import BAD, FORMS, Recorder

from netbpf.abi import commands as abi
from netbpf.abi.commands import Cmd

pytestmark = needs_kernel
MAP_CMDS = [c for c, form in FORMS.items() if form in (abi.MAP_CREATE, abi.MAP_ELEM)]
BATCH_CMDS = [c for c, form in FORMS.items() if form is abi.MAP_BATCH]
ELEM_CMDS = [c for c, form in FORMS.items() if form is abi.MAP_ELEM]
KINDS = {"hash": (1, 4, 8, 4, 1 << 6), "array": (2, 4, 8, 4, 0)}


@pytest.mark.parametrize("cmd", sorted(FORMS), ids=lambda c: Cmd(c).name)
def test_every_byte_of_an_empty_attr(cmd: int) -> None:
    if cmd in (Cmd.BPF_PROG_GET_NEXT_ID, Cmd.BPF_MAP_GET_NEXT_ID, Cmd.BPF_BTF_GET_NEXT_ID, Cmd.BPF_BTF_GET_FD_BY_ID):
        pytest.skip("depends on what else is loaded on this machine")

    def case(r: Recorder) -> None:
        for at in range(-1, abi.ATTR_BYTES):
            attr = bytearray(abi.ATTR_BYTES)
            if at >= 0:
                attr[at] = 1
            r.call(f"byte {at}", cmd, attr)

    both(case)


def test_command_numbers() -> None:
    def case(r: Recorder) -> None:
        for cmd in (-1, 38, 39, 1000, 0x7FFF_FFFF):
            r.call(f"cmd {cmd}", cmd, bytearray(168))

    both(case)


@pytest.mark.parametrize("cmd", [Cmd.BPF_MAP_CREATE, Cmd.BPF_MAP_LOOKUP_ELEM, Cmd.BPF_PROG_LOAD, 99])
def test_size_and_address_of_attr(cmd: int) -> None:
    def case(r: Recorder) -> None:
        for size in (0, 1, 4, 16, 31, 32, 72, 120, 167, 168, 169, 200, 4095, 4096, 4097, 1 << 20, 0xFFFF_FFFF):
            for tail in (0, 1):
                room = r.buffer(8192)
                if tail:
                    room[max(size - 1, 0) if size <= 4096 else 4095] = b"\1"
                r.call(f"size {size} last byte {tail}", cmd, _address(room), size)
        for size in (0, 1, 168, 169, 4096):
            r.call(f"attr at a bad address, size {size}", cmd, BAD, size)

    both(case)


def _address(room: object) -> int:
    import ctypes

    return ctypes.addressof(room)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cmd", ELEM_CMDS, ids=lambda c: Cmd(c).name)
def test_element_commands(cmd: int, kind: str) -> None:
    """Descriptor x key pointer x value pointer x flags."""

    def case(r: Recorder) -> None:
        map_type, key_size, value_size, entries, flags = KINDS[kind]
        prog = r.make_prog()
        keys = {"null": 0, "bad": BAD, "there": r.ptr(b"\1\0\0\0"), "absent": r.ptr(b"\3\0\0\0"), "beyond": r.ptr(b"\x63\0\0\0")}
        for elem_flags in (0, 1, 2, 3, 4, 8, 1 << 63):
            for key_name, key in keys.items():
                for value_name in ("null", "bad", "good"):
                    fd = r.make_map(map_type, key_size, value_size, entries, flags)
                    _fill(r, fd, 2)
                    room = r.buffer(b"\xaa" * 64)
                    value = {"null": 0, "bad": BAD, "good": _address(room)}[value_name]
                    for fd_name, number in {"map": fd, "no fd": 9999, "negative": 0xFFFF_FFFF, "prog": prog}.items():
                        label = f"{fd_name} key {key_name} value {value_name} flags {elem_flags:#x}"
                        r.call(label, cmd, _elem(r, cmd, number, key, value, elem_flags))
                    r.note("value", room.raw[:16].hex())
                    r.note("left", _dump(r, fd))
                    r.process.close(fd)

    both(case)


def _elem(r: Recorder, cmd: int, fd: int, key: int, value: int, flags: int) -> bytearray:
    return r.attr(cmd, map_fd=fd, key=key, value=value, flags=flags)


def _fill(r: Recorder, fd: int, n: int) -> None:
    for i in range(n):
        key, value = r.ptr(i.to_bytes(4, "little")), r.ptr((100 + i).to_bytes(8, "little"))
        r.process.bpf(Cmd.BPF_MAP_UPDATE_ELEM, r.attr(Cmd.BPF_MAP_UPDATE_ELEM, map_fd=fd, key=key, value=value))


def _dump(r: Recorder, fd: int) -> list[tuple[str, str]]:
    return sorted((k.hex(), v.hex()) for k, v in r.process.map_items(fd))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flags", [1 << 3, 1 << 4, 1 << 7, 1 << 8], ids=["rdonly", "wronly", "rdonly_prog", "wronly_prog"])
@pytest.mark.parametrize("frozen", [False, True])
def test_access_modes_and_freeze(kind: str, flags: int, frozen: bool) -> None:
    def case(r: Recorder) -> None:
        map_type, key_size, value_size, entries, seed = KINDS[kind]
        fd = r.make_map(map_type, key_size, value_size, entries, flags | seed)
        if frozen:
            r.do("freeze", Cmd.BPF_MAP_FREEZE, map_fd=fd)
            r.do("freeze again", Cmd.BPF_MAP_FREEZE, map_fd=fd)
        for cmd in ELEM_CMDS:
            for key in (BAD, r.ptr(bytes(4))):
                for elem_flags in (0, 4, 8):
                    fields = {"map_fd": fd, "key": key, "value": r.ptr(8), "flags": elem_flags}
                    r.call(f"{Cmd(cmd).name} key {key == BAD} flags {elem_flags}", cmd, r.attr(cmd, **fields))
        for cmd in BATCH_CMDS:
            for elem_flags in (0, 4, 8):
                fields = {
                    "map_fd": fd,
                    "keys": r.ptr(64),
                    "values": r.ptr(64),
                    "out_batch": r.ptr(8),
                    "n": 1,
                    "elem_flags": elem_flags,
                }
                r.call(f"{Cmd(cmd).name} flags {elem_flags}", cmd, r.attr(cmd, **fields))

    both(case)


@pytest.mark.parametrize("cmd", BATCH_CMDS, ids=lambda c: Cmd(c).name)
@pytest.mark.parametrize("kind", KINDS)
def test_batch_commands(kind: str, cmd: int) -> None:
    def case(r: Recorder) -> None:
        for n in (0, 1, 2, 3, 8):
            for elem_flags, flags in ((0, 0), (1, 0), (4, 0), (8, 0), (0, 1), (1, 1)):
                for bad in ("", "keys", "values", "in_batch", "out_batch", "map_fd"):
                    fd = r.make_map(*KINDS[kind])
                    _fill(r, fd, 3)
                    keys = b"".join(i.to_bytes(4, "little") for i in range(8))
                    fields = {
                        "map_fd": fd,
                        "keys": r.ptr(keys),
                        "values": r.ptr(b"\7" * 64),
                        "out_batch": r.ptr(8),
                        "n": n,
                        "elem_flags": elem_flags,
                        "flags": flags,
                    }
                    if bad:
                        fields[bad] = BAD
                    attr = r.attr(cmd, **fields)
                    r.call(f"n {n} flags {elem_flags}/{flags} bad {bad!r}", cmd, attr)
                    r.note("count", abi.MAP_BATCH.unpack(attr).n)
                    r.note("left", _dump(r, fd))
                    r.process.close(fd)

    both(case)


def test_batch_walk_in_pieces() -> None:
    """The whole map comes out, whatever the piece, and the end is ENOENT."""

    def case(r: Recorder) -> None:
        for kind in KINDS:
            fd = r.make_map(*KINDS[kind][:3], 64, KINDS[kind][4])
            _fill(r, fd, 50)
            for piece in (7, 50, 64):
                found, token, ended = [], b"", False
                while not ended:
                    items, token, ended = r.process.map_lookup_batch(fd, piece, token)
                    found += items
                r.note(f"{kind} in {piece}", sorted((k.hex(), v.hex()) for k, v in found))
            r.note("count deleted", r.process.map_delete_batch(fd, []) if kind == "hash" else 0)
            r.process.close(fd)

    both(case)


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"a",
        b"A_b.9",
        b"a-b",
        b"a b",
        b"fifteen_letters",
        b"sixteen_letters!",
        b"sixteen_letterss",
        b"a\0b",
        b"a\0-",
        b"\xe9",
    ],
)
def test_names(name: bytes) -> None:
    def case(r: Recorder) -> None:
        fd = r.do("create", Cmd.BPF_MAP_CREATE, map_type=1, key_size=4, value_size=4, max_entries=1, map_name=name)
        if fd > 0:
            r.note("name", r.process.map_info(fd).name)
        prog = r.do(
            "load",
            Cmd.BPF_PROG_LOAD,
            prog_type=1,
            insn_cnt=2,
            insns=r.ptr(bytes.fromhex("b7000000000000009500000000000000")),
            license=r.ptr(b"\0"),
            prog_name=name,
        )
        if prog > 0:
            r.note("name", r.process.prog_info(prog).name)

    both(case)


_VALUES: dict[str, tuple[object, ...]] = {
    "map_name": (b"x",),
    "map_type": (0, 1, 2, 3, 34, 35, 0x7FFF_FFFF),  # kinds that only the kernel has are named in docs/differences.md
    "max_entries": (0, 1, 3, 1000),  # not what both would really allocate
    "map_ifindex": (0, 1, 0x7FFF_FFFF),  # which other devices are there is this machine's
}


@pytest.mark.parametrize("field", abi.MapCreateAttr._fields)
def test_create_fields_one_by_one(field: str) -> None:
    """A good map with one field changed."""

    def case(r: Recorder) -> None:
        for kind in (1, 2):
            good = {"map_type": kind, "key_size": 4, "value_size": 4, "max_entries": 1}
            values: tuple[object, ...] = (0, 1, 2, 3, 0x10, 0x7FFF_FFFF)
            for value in _VALUES.get(field, values):
                r.do(f"{kind} {field}={value!r}", Cmd.BPF_MAP_CREATE, **{**good, field: value})
            if field == "map_flags":
                for bit in range(32):
                    r.do(f"{kind} flag {bit}", Cmd.BPF_MAP_CREATE, **{**good, field: 1 << bit})

    both(case)
