"""How far from the machine's limits (b) and (c) are: beside C loops that are told beforehand what ours have to find.

    python -m benchmarks.known --traces DIR [--rounds 5] [FILE ...]

The C loops (c/known.c) know where every record of the capture is, and which element of the table each packet's flow has; of a
packet they bring in the two lines that hold its headers, far ahead, and do by hand, without branches, what the program does. What
they take is what the memory takes: a program that has to find records and flows cannot be faster. ``known records c`` is told of
records alone, and looks flows up in a table of C's. (b) is also told beside libpcap's own loop. Needs a C compiler and libpcap's
headers.
"""

from __future__ import annotations

import argparse
import ctypes
import tempfile
from array import array
from collections.abc import Callable
from pathlib import Path

from benchmarks.native import (
    EXPRESSION,
    Mapping,
    Walker,
    compiled,
    filter_spec,
    interleaved,
    large_traces,
    limit_loop,
    programs,
    tell,
)

SHORTEST_RECORD = 16 + 60
ELEMENT_BYTES = 40


class Known:
    """The C loops on one capture."""

    def __init__(self, folder: Path, mapping: Mapping) -> None:
        self._c, self._mapping = compiled(folder, "known"), mapping
        most = len(mapping.buffer) // SHORTEST_RECORD + 1
        self._record, self._element, flows = array("Q", bytes(8 * most)), array("I", bytes(4 * most)), ctypes.c_uint32()
        for function in (self._c.find_all, self._c.filter_known, self._c.count_known, self._c.count_flows_known):
            function.restype = ctypes.c_uint64
        at, size = ctypes.c_void_p(mapping.address), ctypes.c_uint64(len(mapping.buffer))
        self._at, self._records, self._elements = at, *(self._address(a) for a in (self._record, self._element))
        self.packets = self._c.find_all(at, size, self._records, self._elements, ctypes.byref(flows))
        self.flows, self._n = flows.value, ctypes.c_uint64(self.packets)
        self._table = bytearray(ELEMENT_BYTES * (self.flows + 2))
        self._pin = (ctypes.c_char * len(self._table)).from_buffer(self._table)

    @staticmethod
    def _address(column: array[int]) -> ctypes.c_void_p:
        return ctypes.c_void_p(column.buffer_info()[0])

    def filter(self) -> int:
        """How many packets (b) accepts."""
        return int(self._c.filter_known(self._at, self._records, self._n))

    def count(self) -> None:
        """Add to the flows' elements."""
        self._c.count_known(self._at, self._records, self._elements, self._n, self._pin)

    def count_flows(self) -> int:
        """How many flows there are, looked up."""
        return int(self._c.count_flows_known(self._at, self._records, self._n))


def measure(path: Path, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder, mapping, count = Path(temporary), Mapping(path), ctypes.c_uint64()
        known, limit, pcap = Known(folder, mapping), limit_loop(folder), compiled(folder, "libpcap", "-lpcap")
        pcap.filter_file.restype = ctypes.c_int64
        ours = {"b": Walker(filter_spec(), view="file"), "c": Walker(programs()["c"], view="file")}
        name = str(path).encode()

        def libpcap() -> int:
            return int(pcap.filter_file(name, EXPRESSION.encode(), ctypes.byref(count)))

        accepted = ours["b"].walk(mapping).accepted
        if not accepted == known.filter() == libpcap():
            raise SystemExit(f"{path.name}: the loops do not accept the same packets")
        if known.count_flows() != known.flows:
            raise SystemExit(f"{path.name}: the loops do not find the same flows")
        ways: dict[str, Callable[[], object]] = {
            "limit": lambda: limit.walk_records(mapping.address, len(mapping.buffer), ctypes.byref(count)), "libpcap": libpcap,
            "known b": known.filter, "known c": known.count, "known records c": known.count_flows,
        }  # fmt: skip
        for program, walker in ours.items():
            ways[program] = lambda walker=walker: walker.walk(mapping)
        seconds = interleaved(rounds, ways)
    for program in ours:
        tell(f"known {program} {path.stem}", seconds[f"known {program}"], known.packets, "ours", seconds[program])
    for way in ("known b", "b"):
        what = "known b" if way == "known b" else "ours b"
        tell(f"{what} {path.stem}", seconds[way], known.packets, "libpcap", seconds["libpcap"])
    tell(f"known c {path.stem}", seconds["known c"], known.packets, "limit", seconds["limit"])
    tell(f"known records c {path.stem}", seconds["known records c"], known.packets, "ours", seconds["c"])
    print(f"  {known.flows} flows, {accepted} packets accepted", flush=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--traces", type=Path, required=True, help="where benchmarks.traces wrote")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("files", nargs="*", help="names of traces, all large ones by default")
    a = p.parse_args()
    for path in large_traces(a.traces, a.files):
        measure(path, a.rounds)


if __name__ == "__main__":
    main()
