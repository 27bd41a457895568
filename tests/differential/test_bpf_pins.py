"""BPF_OBJ_PIN and BPF_OBJ_GET on a bpf file system of one's own, and on the simulator's."""

from __future__ import annotations

import ctypes
import os

from support.kernel import needs_kernel
from support.recorder import BAD, Recorder

from netbpf.abi.commands import Cmd
from netbpf.host.linux.host import LinuxProcess
from netbpf.host.linux.syscalls import checked, libc
from netbpf.host.linux.worker import Worker
from netbpf.host.sim.host import SimHost

pytestmark = needs_kernel
CLONE_NEWNS, MS_PRIVATE, MS_REC = 0x20000, 1 << 18, 1 << 14
BPFFS = "/sys/fs/bpf"


def _own_bpffs() -> None:
    """The calling thread gets a mount namespace with a fresh bpf file system."""
    checked(libc.unshare(ctypes.c_int(CLONE_NEWNS)))
    checked(libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None))
    checked(libc.mount(b"bpf", BPFFS.encode(), b"bpf", ctypes.c_ulong(0), None))


def scenario(r: Recorder, mkdir: object) -> None:
    p = r.process
    fd, prog = r.make_map(), r.make_prog()
    mkdir(f"{BPFFS}/dir")  # type: ignore[operator]

    def pin(label: str, path: str | int, number: int, **fields: int) -> int:
        address = path if isinstance(path, int) else r.ptr(path.encode() + b"\0")
        return r.do(f"pin {label}", Cmd.BPF_OBJ_PIN, pathname=address, bpf_fd=number, **fields)

    def get(label: str, path: str | int, **fields: int) -> int:
        address = path if isinstance(path, int) else r.ptr(path.encode() + b"\0")
        return r.do(f"get {label}", Cmd.BPF_OBJ_GET, pathname=address, **fields)

    for label, path in {
        "map": f"{BPFFS}/m",
        "again": f"{BPFFS}/m",
        "deeper": f"{BPFFS}/dir/m",
        "at a directory": f"{BPFFS}/dir",
        "in no directory": f"{BPFFS}/none/m",
        "below a map": f"{BPFFS}/m/x",
        "the root": BPFFS,
        "with a dot": f"{BPFFS}/a.b",
        "odd slashes": f"{BPFFS}//dir//n",
        "trailing slash": f"{BPFFS}/t/",
        "elsewhere": "/tmp/netbpf-no-bpffs",
        "nowhere": "/nonexistent/m",
        "empty": "",
        "long name": f"{BPFFS}/{'x' * 255}",
        "too long a name": f"{BPFFS}/{'x' * 256}",
        "too long a path": f"{BPFFS}/" + "y/" * 3000,
    }.items():
        pin(label, path, fd)
    pin("program", f"{BPFFS}/p", prog)
    pin("no descriptor", f"{BPFFS}/q", 9999)
    for place in (0, BAD):
        pin(f"at {place}", place, fd)
        get(f"at {place}", place)
    for flags in (1, 8, 16, 1 << 14):
        pin(f"flags {flags}", f"{BPFFS}/f{flags}", fd, file_flags=flags)
    pin("path_fd", f"{BPFFS}/g", fd, path_fd=1)
    for name in ("m", "dir/m", "p", "dir/n", "dir", "none", "none/x", "m/x", "a.b", "f8"):
        get(name, f"{BPFFS}/{name}")
    get("elsewhere", "/tmp")
    get("nowhere", "/nonexistent/m")
    get("empty", "")
    get("bpf_fd", f"{BPFFS}/m", bpf_fd=1)
    get("path_fd", f"{BPFFS}/m", path_fd=1)
    for flags in (1, 8, 16, 24, 1 << 14):
        mine = get(f"flags {flags}", f"{BPFFS}/m", file_flags=flags)
        if mine > 2:
            key, value = r.ptr(bytes(4)), r.ptr(bytes(8))
            r.do("update through it", Cmd.BPF_MAP_UPDATE_ELEM, map_fd=mine, key=key, value=value)
            r.do("lookup through it", Cmd.BPF_MAP_LOOKUP_ELEM, map_fd=mine, key=key, value=value)
    get("program read-only", f"{BPFFS}/p", file_flags=8)
    p.map_update_elem(fd, b"\1\0\0\0", b"12345678")
    p.close(fd)
    again = get("after the close", f"{BPFFS}/m")
    r.note("its contents", p.map_lookup_elem(again, b"\1\0\0\0"))


def test_pinned_names() -> None:
    host = SimHost()
    with host.process() as process:
        sim = Recorder(process)
        scenario(sim, host.mkdir)
    with LinuxProcess(Worker(_own_bpffs)) as process:
        kernel = Recorder(process)
        scenario(kernel, lambda path: process.run(os.mkdir, path))
    wrong = [f"sim    {a}\nkernel {b}" for a, b in zip(sim.log, kernel.log, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} of {len(sim.log)} differ:\n" + "\n".join(wrong)
