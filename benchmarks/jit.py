"""The native engine beside other user-space JITs for eBPF, each in a C loop with the limit's prefetch; every line is a ratio.

    python -m benchmarks.traces DIR
    python -m benchmarks.jit --traces DIR [--rounds 5] [--ubpf FOLDER] [FILE ...]

``ubpf`` is uBPF (https://github.com/iovisor/ubpf), built in FOLDER, which holds ubpf.h and libubpf.a anywhere below; ``dpdk`` is
DPDK's librte_bpf, found by pkg-config (Debian: libdpdk-dev). One that is not there is skipped, with a line that says so.

They run (a), (b) and (c) of ``benchmarks.native`` on the packet's bytes where they lie, with maps that are tables in C behind the
JIT's helper calls (c/tables.h), in two forms. The plain name is the same program, load by load, as ``benchmarks.in_memory`` turns
it into one over memory. ``by hand`` is programs/memory: written anew in the other side's favour, with one check for the fixed
header, no number swapped, and no additions with a lock, which the native engine does without where one thread runs.

Before anything is timed, packets, verdicts and every count and flow are compared with ours on the same bytes: as a file has them,
tags in line. What is timed of ours is what a replay does by default: packets as a socket sees them, with the tags taken out.
Times are the thread's own, so that what others do on the machine counts as little as it can. Needs a C compiler.
"""

from __future__ import annotations

import argparse
import ctypes
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.in_memory import Helper, in_memory
from benchmarks.native import HERE, Mapping, Walker, compiled, interleaved, large_traces, limit_loop, programs, tell
from netbpf.isa.instruction import INSN_BYTES, encode
from netbpf.maps.storage import MapBase
from netbpf.sources import asm

ERROR_BYTES = 200
COUNTED = (6, 17)
FLOW_ENTRIES = 65536
FLOW = struct.Struct("<16s16s")
BY_HAND = " by hand"
FORMS = ("", BY_HAND)
LOOKUP, UPDATE = 1, 2  # bpf_map_lookup_elem, bpf_map_update_elem
HELPERS = {"a": {LOOKUP: Helper(1, 1)}, "b": {}, "c": {LOOKUP: Helper(2, 1), UPDATE: Helper(3, 2)}}  # numbers of c/jit_*.c
DECLARED = '.name memory\n.type socket_filter\n.license "GPL"\n'  # what our assembler wants said; only the instructions are used
PACKET_AND_LENGTH = "r6 = r1\nr9 = r2\n"
PCAP_RECORD = "r9 = *(u32 *)(r1 + 8)\nr1 += 16\nr6 = r1\n"
UBPF_BUILD = "cmake -B build -DCMAKE_POSITION_INDEPENDENT_CODE=ON && cmake --build build"


class Absent(Exception):
    """Another JIT is not on this machine; the text says how to get it."""


def ubpf(folder: Path, given: Path | None) -> ctypes.CDLL:
    if given is None:
        raise Absent(f"build https://github.com/iovisor/ubpf ({UBPF_BUILD}), and say --ubpf FOLDER")
    headers = {path.parent for name in ("ubpf.h", "ubpf_config.h") for path in given.rglob(name)}
    libraries = sorted(given.rglob("libubpf.a"))
    if not headers or not libraries:
        raise Absent(f"no ubpf.h and libubpf.a below {given}: {UBPF_BUILD}")
    return compiled(folder, "jit_ubpf", *(f"-I{path.resolve()}" for path in sorted(headers)), str(libraries[0].resolve()))


def dpdk(folder: Path, given: Path | None) -> ctypes.CDLL:
    try:
        told = subprocess.run(["pkg-config", "--cflags", "libdpdk"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise Absent("pkg-config knows no libdpdk: apt-get install libdpdk-dev") from None
    return compiled(folder, "jit_dpdk", *told.stdout.split(), "-lrte_bpf", "-lrte_eal")


class Came(NamedTuple):
    """What a walk came to."""

    packets: int
    accepted: int


class Kind(NamedTuple):
    """How to get a JIT's loop, and what leaves the packet in R1 and R6, its length in R9."""

    library: Callable[[Path, Path | None], ctypes.CDLL]
    prologue: str


KINDS = {"ubpf": Kind(ubpf, PACKET_AND_LENGTH), "dpdk": Kind(dpdk, PCAP_RECORD)}


def instructions(name: str, prologue: str, form: str) -> bytes:
    """Program NAME in a form of FORMS, behind a prologue that leaves the packet in R1 and R6, its length in R9."""
    if form == BY_HAND:
        path = HERE / "programs" / "memory" / f"{name}.s"
        return encode(asm.parse(DECLARED + prologue + path.read_text(), str(path)).insns)
    before = asm.parse(DECLARED + prologue + "exit\n").insns[:-1]
    return encode(before + in_memory(programs()[name].insns, HELPERS[name]))


class OtherJit:
    """A JIT's loop with the programs it compiled, and the tables that they share."""

    def __init__(self, library: ctypes.CDLL, prologue: str) -> None:
        self.library, self.prologue = library, prologue
        library.load_program.restype = ctypes.c_void_p
        library.run_program.restype = library.count_of.restype = ctypes.c_uint64
        library.run_program.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p]

    def load(self, name: str, form: str) -> int:
        """The compiled program. Raises RuntimeError with what the JIT says of it."""
        code, error = instructions(name, self.prologue, form), ctypes.create_string_buffer(ERROR_BYTES)
        program = self.library.load_program(code, len(code) // INSN_BYTES, error)
        if not program:
            raise RuntimeError(f"program {name}{form}: {error.value.decode()}")
        return int(program)

    def run(self, program: int, mapping: Mapping) -> Came:
        """One walk, on the tables as they are."""
        packets = ctypes.c_uint64()
        accepted = self.library.run_program(program, mapping.address, len(mapping.buffer), ctypes.byref(packets))
        return Came(packets.value, int(accepted))

    def clear(self) -> None:
        self.library.clear_tables(*COUNTED)

    def entries(self, name: str, form: str) -> dict[bytes, bytes]:
        """What program NAME's map holds, as ours would."""
        if name == "a":
            return {struct.pack("<I", key): struct.pack("<Q", self.library.count_of(key)) for key in COUNTED}
        room = ctypes.create_string_buffer(FLOW_ENTRIES * FLOW.size)
        size = self.library.copy_flows(room) * FLOW.size if name == "c" else 0
        return {swapped(key) if form == BY_HAND else key: value for key, value in FLOW.iter_unpack(room.raw[:size])}


def swapped(key: bytes) -> bytes:
    """A flow's key with source, destination and ports in the other byte order: our program's packet loads turn them round."""
    return struct.pack("<4I", *struct.unpack(">3I", key[:12]), *struct.unpack("<I", key[12:]))


def others(folder: Path, given: Path | None) -> Iterator[tuple[str, OtherJit]]:
    """Every JIT there is; a line for each that is not."""
    for name, kind in KINDS.items():
        try:
            yield name, OtherJit(kind.library(folder, given), kind.prologue)
        except Absent as e:
            print(f"{name}: skipped: {e}")


def walk_ours(name: str, mapping: Mapping, view: str) -> tuple[Came, dict[bytes, bytes]]:
    """One walk of program NAME on maps of its own, and what its map then holds."""
    walker = Walker(programs()[name], view=view)
    totals = walker.walk(mapping)
    came = Came(totals.packets, totals.accepted)
    return came, {key: value for fd in walker.map_fds.values() for key, value in contents(walker.process.map(fd))}


def contents(table: MapBase) -> Iterator[tuple[bytes, bytes]]:
    key = table.next_key(None)
    while key is not None:
        yield key, table.lookup_user(key)
        key = table.next_key(key)


def compare(name: str, mapping: Mapping, jits: dict[str, OtherJit]) -> None:
    """One walk in each loop. Raises RuntimeError where another JIT saw or counted something else than we do."""
    came, entries = walk_ours(name, mapping, "file")
    for jit, other in jits.items():
        for form in FORMS:
            other.clear()
            theirs = other.run(other.load(name, form), mapping)
            if (theirs, other.entries(name, form)) != (came, entries):
                raise RuntimeError(f"program {name}{form} under {jit}: {theirs} and other entries than ours, or not {came}")
    socket, seen = walk_ours(name, mapping, "packet_raw")
    print(f"  same in all: {came.packets} packets, {came.accepted} accepted, {len(entries)} map entries, tags in line;", end=" ")
    print(f"as a socket sees them {socket.accepted} accepted, {len(seen)} entries", flush=True)


def measure(name: str, path: Path, limit: ctypes.CDLL, rounds: int, jits: dict[str, OtherJit]) -> None:
    """Program NAME on a trace in every loop, interleaved."""
    mapping, count, walker = Mapping(path), ctypes.c_uint64(), Walker(programs()[name])
    compare(name, mapping, jits)
    ways: dict[str, Callable[[], object]] = {
        "limit": lambda: limit.walk_records(mapping.address, len(mapping.buffer), ctypes.byref(count)),
        "ours": lambda: walker.walk(mapping),
    }
    for jit, other in jits.items():
        for form in FORMS:
            ways[jit + form] = partial(other.run, other.load(name, form), mapping)
    seconds = interleaved(rounds, ways, time.thread_time)
    for way in [way for way in ways if way != "ours"]:
        tell(f"jit {name} {path.stem}", seconds["ours"], count.value, way, seconds[way])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--traces", type=Path, required=True, help="where benchmarks.traces wrote")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--ubpf", type=Path, metavar="FOLDER", help="where uBPF is built")
    p.add_argument("files", nargs="*", help="names of traces, all large ones by default")
    a = p.parse_args()
    paths = large_traces(a.traces, a.files)
    with tempfile.TemporaryDirectory() as folder:
        jits, limit = dict(others(Path(folder), a.ubpf)), limit_loop(Path(folder))
        for path in paths if jits else ():
            for name in programs():
                measure(name, path, limit, a.rounds, jits)


if __name__ == "__main__":
    main()
