"""Live packets: user CPU a packet of the ring, of recv(), and of tcpdump, on the same flood over a veth pair.

    python -m benchmarks.live [--packets 2000000] [--size 100] [--rounds 3]

Everything happens in a network namespace of its own, which ends with this process: a sender floods one end of a veth pair, one
receiver at a time takes the packets at the other end. ``ring``: the counting example in native code on a TPACKET_V3 ring, as
``netbpf attach`` runs it. ``recv``: recv_into() on a packet socket and nothing else. ``filtered``: ``netbpf.attach`` on that
socket, the program in the reference engine, on a twentieth of the flood. ``tcpdump``: ``tcpdump -i DEVICE --count``, which runs
no program. Both rings let a block wait a second to fill. CPU is what getrusage tells of the receiver between ready and done; its
halves are told apart by the clock's ticks, so their sum is the surer number. What nobody saw must be in the drops, or the run
fails. Needs root and tcpdump.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import json
import os
import re
import resource
import select
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
COUNTING = ROOT / "scenarios" / "counting.s"
DEVICE = "nbl0"
FAR = f"{DEVICE}p"
RCVBUF_BYTES = 32 << 20
RETIRE_MS = 1000  # as long as tcpdump lets a block wait to fill: whoever wakes more often pays for it
SETTLE_S = 2.0
TCPDUMP_BUFFER_KIB = 16 << 10  # as large as our ring
BURST = 64
RECEIVERS = ("ring", "recv", "filtered", "tcpdump")


class Result(NamedTuple):
    """What one receiver saw of a flood, and the CPU it took."""

    packets: int
    drops: int
    user_s: float
    system_s: float


# --- receivers: each a process of its own -----------------------------------------------------------------------------------


def receive(role: str) -> None:
    """Say ready, take packets until stdin ends, then tell."""
    step, stats = {"ring": ring, "recv": plain, "filtered": filtered}[role]()
    before = resource.getrusage(resource.RUSAGE_SELF)
    print("ready", flush=True)
    stop = select.poll()
    stop.register(0, select.POLLIN | select.POLLHUP)
    while not stop.poll(0):
        step(0.5)
    step(0.0)
    after = resource.getrusage(resource.RUSAGE_SELF)
    packets, drops = stats()
    print(json.dumps(Result(packets, drops, after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime)), flush=True)


def ring() -> tuple[Any, Any]:
    from netbpf.engine.llvm.engine import NativeEngine
    from netbpf.host.linux.packet_ring import RingFilter, arrival_env, open_ring_socket
    from netbpf.host.live_program import LiveProgram
    from netbpf.sources.load import load

    live = LiveProgram(load(COUNTING), NativeEngine(), arrival_env())
    _, made = open_ring_socket(DEVICE, 3, RETIRE_MS)
    taken = RingFilter(made, live.loaded)
    return taken.run, lambda: (taken.filter_stats.packets, taken.filter_stats.kernel_drops)


def open_plain() -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(socket.SOL_SOCKET, 33, RCVBUF_BYTES)  # SO_RCVBUFFORCE
    sock.setblocking(False)
    sock.bind((DEVICE, 3))
    return sock


def drain_step(sock: Any, count: list[int]) -> Any:
    poll, room = select.poll(), bytearray(65536)
    poll.register(sock.fileno(), select.POLLIN)

    def step(timeout_s: float) -> None:
        poll.poll(timeout_s * 1000)
        try:
            for _ in range(65536):
                sock.recv_into(room)
                count[0] += 1
        except BlockingIOError:
            pass

    return step


def plain() -> tuple[Any, Any]:
    from netbpf.host.linux.packet_statistics import PacketStatistics

    sock, count = open_plain(), [0]
    statistics = PacketStatistics(sock)
    return drain_step(sock, count), lambda: (count[0], statistics.drops)


def filtered() -> tuple[Any, Any]:
    import netbpf

    sock = netbpf.attach(open_plain(), COUNTING)
    return drain_step(sock, [0]), lambda: (sock.filter_stats.packets, sock.filter_stats.kernel_drops)


# --- the flood ----------------------------------------------------------------------------------------------------------------


def frame(size: int) -> bytes:
    """A UDP packet from one end of the pair to the other."""
    ip = bytes.fromhex("4500") + (size - 14).to_bytes(2) + bytes.fromhex("00004000401100000a0000010a000002")
    udp = bytes.fromhex("04d20035") + (size - 34).to_bytes(2) + bytes(2)
    return (b"\x02" + bytes(4) + b"\x01" + b"\x02" + bytes(4) + b"\x02" + b"\x08\0" + ip + udp).ljust(size, b"x")


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32), ("iov", ctypes.POINTER(_Iovec)), ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int), ("sent", ctypes.c_uint),
    )  # fmt: skip


def flood(packets: int, size: int) -> None:
    """Send, BURST frames a system call; what the pair has no room for is tried again."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind((FAR, 0))
    data, libc = ctypes.create_string_buffer(frame(size), size), ctypes.CDLL(None, use_errno=True)
    one = _Iovec(ctypes.addressof(data), size)
    messages = (_Message * BURST)(*[_Message(iov=ctypes.pointer(one), iovlen=1) for _ in range(BURST)])
    left = packets
    while left:
        sent = libc.sendmmsg(sock.fileno(), messages, min(left, BURST), 0)
        if sent < 0 and ctypes.get_errno() != errno.ENOBUFS:
            raise OSError(ctypes.get_errno(), "sendmmsg")
        left -= max(sent, 0)
    sock.close()


def run_ours(role: str, packets: int, size: int) -> Result:
    command = [sys.executable, "-m", "benchmarks.live", "--role", role]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert child.stdin is not None
    assert child.stdout is not None
    if child.stdout.readline().strip() != "ready":
        raise SystemExit(f"{role}: the receiver did not start")
    flood(packets, size)
    time.sleep(SETTLE_S)
    child.stdin.close()
    told = Result(*json.loads(child.stdout.readline()))
    child.wait(30)
    return told


def run_tcpdump(packets: int, size: int) -> Result:
    """CPU of the process less that of one which sees no packet."""
    idle, busy = _tcpdump(0, size), _tcpdump(packets, size)
    return busy._replace(user_s=busy.user_s - idle.user_s, system_s=busy.system_s - idle.system_s)


def _tcpdump(packets: int, size: int) -> Result:
    command = ["tcpdump", "-i", DEVICE, "-n", "--count", "-B", str(TCPDUMP_BUFFER_KIB), "-Z", "root"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    while "listening" not in (line := child.stderr.readline()):
        if not line:
            raise SystemExit("tcpdump did not start")
    flood(packets, size)
    time.sleep(SETTLE_S)
    child.send_signal(signal.SIGINT)
    told = child.stderr.read() + (child.stdout.read() if child.stdout else "")
    _, _, usage = os.wait4(child.pid, 0)
    child.returncode = 0
    seen, dropped = (int(re.findall(rf"(\d+) packets? {word}", told)[-1]) for word in ("captured", "dropped by kernel"))
    return Result(seen, dropped, usage.ru_utime, usage.ru_stime)


def measure(packets: int, size: int, rounds: int) -> bool:
    """Print every receiver and its ratio to the ring; whether every packet is accounted for."""
    found: dict[str, list[Result]] = {role: [] for role in RECEIVERS}
    for _ in range(rounds):
        for role in RECEIVERS:
            fewer = max(packets // 20, 1) if role == "filtered" else packets
            found[role].append(run_tcpdump(fewer, size) if role == "tcpdump" else run_ours(role, fewer, size))
    whole = True
    each: dict[str, float] = {}
    all_cpu: dict[str, float] = {}
    for role, results in found.items():
        sent = max(packets // 20, 1) if role == "filtered" else packets
        each[role] = statistics.median(r.user_s / max(r.packets, 1) for r in results) * 1e9
        system = statistics.median(r.system_s / max(r.packets, 1) for r in results) * 1e9
        seen, drops = (sum(getattr(r, name) for r in results) for name in ("packets", "drops"))
        silent = sent * rounds - seen - drops
        whole &= silent == 0 or role == "tcpdump"
        print(
            f"{role}: {each[role]:.1f} ns user CPU a packet ({system:.1f} ns system), {seen} seen, {drops} dropped and counted, "
            f"{silent} lost in silence",
            flush=True,
        )
        all_cpu[role] = statistics.median((r.user_s + r.system_s) / max(r.packets, 1) for r in results) * 1e9
    for role in RECEIVERS[1:]:
        user, both = each["ring"] / max(each[role], 1e-9), all_cpu["ring"] / max(all_cpu[role], 1e-9)
        print(f"ratio ring / {role}: {user:.3f} of the user CPU, {both:.3f} of user and system CPU")
    return whole


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--packets", type=int, default=2_000_000)
    p.add_argument("--size", type=int, default=100)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--role", choices=RECEIVERS[:3], help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.role:
        receive(a.role)
        return
    from netbpf.host.linux.devices import Veth
    from netbpf.host.linux.netns import enter_new_netns

    enter_new_netns()
    Veth(DEVICE)  # its far end is FAR
    print(f"{a.packets} packets of {a.size} bytes, {a.rounds} rounds")
    if not measure(a.packets, a.size, a.rounds):
        raise SystemExit("packets were lost that PACKET_STATISTICS does not show")


if __name__ == "__main__":
    main()
