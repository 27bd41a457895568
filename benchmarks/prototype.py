"""The native engine beside the prototype that the project's speed targets were measured with, in one run on one mapping.

    python -m benchmarks.prototype --traces DIR --prototype FOLDER [--rounds 5] [FILE ...]

FOLDER holds the prototype's native.py and programs.py, which are no part of this repository. A target in nanoseconds is one of
the machine it was measured on; beside what that measurement ran it can be looked at on any. The prototype knows no tags, times,
deletes or VLANs in the way of a socket, and its tables are its own; (b) it cannot run without the kernel's dump of a filter.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.native import FILE_HEADER_BYTES, Mapping, Walker, interleaved, large_traces, limit_loop, programs, tell

PROGRAMS = ("a", "c")


def loaded(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path}: no module of the prototype")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Prototype:
    """Its loop around one of its programs."""

    def __init__(self, native: Any, name: str) -> None:
        text, shapes = native.build_ir(name)
        self._code, self._maps = native.compile_ir(text), native.mkmaps(shapes)
        if name == "a":
            native.prefill_a(self._maps[0], shapes[0])
        self._run = native.mkfn(self._code.addr, len(self._maps))
        self._bases = [native.baddr(m) for m in self._maps]
        self._told = (ctypes.c_uint64 * 4)()

    def walk(self, mapping: Mapping) -> int:
        """How many packets it saw."""
        self._run(mapping.address, FILE_HEADER_BYTES, len(mapping.buffer), ctypes.addressof(self._told), None, *self._bases)
        return self._told[0]


def measure(path: Path, native: Any, limit: ctypes.CDLL, rounds: int) -> None:
    mapping, count = Mapping(path), ctypes.c_uint64()
    ways: dict[str, Callable[[], object]] = {
        "limit": lambda: limit.walk_records(mapping.address, len(mapping.buffer), ctypes.byref(count))
    }
    for name in PROGRAMS:
        theirs, ours = Prototype(native, name), Walker(programs()[name])
        if (theirs.walk(mapping), theirs.walk(mapping)) != (packets := ours.walk(mapping).packets, packets):
            raise RuntimeError(f"program {name}: the prototype saw another number of packets")
        ways[f"prototype {name}"] = lambda theirs=theirs: theirs.walk(mapping)
        ways[f"ours {name}"] = lambda ours=ours: ours.walk(mapping)
    seconds = interleaved(rounds, ways)
    for name in PROGRAMS:
        for other in (f"prototype {name}", "limit"):
            tell(f"prototype {name} {path.stem}", seconds[f"ours {name}"], count.value, other, seconds[other])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--traces", type=Path, required=True, help="where benchmarks.traces wrote")
    p.add_argument("--prototype", type=Path, required=True, metavar="FOLDER")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("files", nargs="*", help="names of traces, all large ones by default")
    a = p.parse_args()
    loaded("progs", a.prototype / "programs.py")
    native = loaded("prototype_native", a.prototype / "native.py")
    paths = large_traces(a.traces, a.files)
    with tempfile.TemporaryDirectory() as folder:
        limit = limit_loop(Path(folder))
        for path in paths:
            measure(path, native, limit, a.rounds)


if __name__ == "__main__":
    main()
