"""The native engine beside the physical limit, libpcap and tcpdump; every line is a ratio of medians of interleaved rounds.

    python -m benchmarks.traces DIR
    python -m benchmarks.native --traces DIR [--rounds 5] [--only loop|filter|command|streams|jobs|kernel|inner|tails] [FILE ...]

(a) the counting example, (b) ``ip and tcp port 443 and not net 10.0.0.0/8``, (c) a counter of flows. ``loop``: the native loop
and a C loop that only walks the records, on one mapping of the file. ``filter``: (b) beside a C loop over libpcap. ``command``:
the whole process beside tcpdump, netbpf being installed in an environment of its own. ``streams``: a file, standard input and a
pipe, and the peak memory of each. ``jobs``: two cores beside one. ``kernel``: (c) beside the kernel's JIT running it on one
packet. ``inner``: maps inside maps, native beside the interpreter; ``tails``: programs that reach each other by tail calls, the
same. Needs a C compiler, libpcap's headers and tcpdump; ``kernel`` needs root.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from netbpf.engine.interp.engine import InterpEngine
from netbpf.engine.llvm.engine import NativeEngine
from netbpf.engine.results import Totals
from netbpf.env import SteppedEnv
from netbpf.host.loader import load_spec
from netbpf.host.sim.host import SimHost
from netbpf.packet.batch import PacketBatch
from netbpf.packet.open import open_capture
from netbpf.program import ProgramSpec
from netbpf.replay.parallel import MADV_POPULATE_READ
from netbpf.sources import cbpf
from netbpf.sources.load import read_program

HERE = Path(__file__).parent
ROOT = HERE.parent
EXPRESSION = "ip and tcp port 443 and not net 10.0.0.0/8"
FILE_HEADER_BYTES = 24
INTERPRETED_PACKETS = 10_000


def compiled(folder: Path, name: str, *libraries: str) -> ctypes.CDLL:
    """benchmarks/c/NAME.c as a library."""
    target = folder / f"{name}.so"
    compiler = shutil.which("gcc") or shutil.which("cc") or "cc"
    words = [compiler, "-O2", "-shared", "-fPIC", "-o", str(target), str(HERE / "c" / f"{name}.c"), *libraries]
    subprocess.run(words, check=True)
    return ctypes.CDLL(str(target))


def limit_loop(folder: Path) -> ctypes.CDLL:
    """The C loop that only walks the records: ``walk_records(address, bytes, where to put how many)``."""
    limit = compiled(folder, "limit")
    limit.walk_records.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p]
    return limit


def large_traces(folder: Path, names: list[str]) -> list[Path]:
    """The traces of these names; all large ones where there is none."""
    return [folder / n for n in names] or [f for f in sorted(folder.glob("*.pcap")) if f.stat().st_size > SMALL_FILE_BYTES]


def filter_spec() -> ProgramSpec:
    """Program (b): libpcap's code for the expression, translated."""
    told = subprocess.run(["tcpdump", "-y", "EN10MB", "-ddd", *EXPRESSION.split()], capture_output=True, text=True, check=False)
    if told.returncode:  # no device to ask about: any Ethernet capture will do
        capture = str(ROOT / "pcaps" / "session.pcap")
        told = subprocess.run(["tcpdump", "-r", capture, "-ddd", EXPRESSION], capture_output=True, text=True, check=True)
    return cbpf.to_spec(cbpf.parse_ddd(told.stdout))


def programs() -> dict[str, ProgramSpec]:
    counting, flows = ROOT / "scenarios" / "counting.s", HERE / "programs" / "flows.s"
    return {"a": read_program(str(counting)), "b": filter_spec(), "c": read_program(str(flows))}


class Mapping:
    """A capture mapped whole and populated, as a window that can be walked again and again."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as f:
            self.buffer = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self.buffer.madvise(MADV_POPULATE_READ)
        with open_capture(path) as reader:
            self.layout = reader.layout()
        self.start, self.end, self.first_number = FILE_HEADER_BYTES, len(self.buffer), 1
        self._pin = (ctypes.c_char * 1).from_buffer(self.buffer)
        self.address = ctypes.addressof(self._pin)

    def advance(self, size_bytes: int, records: int) -> None:
        """Stay where it is."""


class Walker:
    """One program made live on maps of its own; ``view`` is who looks at the packets."""

    def __init__(self, spec: ProgramSpec, engine: Any = None, view: str = "packet_raw") -> None:
        env = SteppedEnv()
        self.process = SimHost(env=env).process()
        fds = load_spec(self.process, spec)
        self.map_fds = fds.map_fds
        self.loaded = (engine or NativeEngine()).load(self.process.program(fds.prog_fd), env, view=view)

    def walk(self, mapping: Any) -> Totals:
        totals = Totals()
        self.loaded.walk(mapping, totals)
        return totals


def interleaved(
    rounds: int, ways: dict[str, Callable[[], object]], clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each way, all of them once a round."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()  # compile, fault pages in
    for _ in range(rounds):
        for name, way in ways.items():
            started = clock()
            way()
            times[name].append(clock() - started)
    return {name: statistics.median(found) for name, found in times.items()}


def tell(name: str, seconds: float, packets: int, other: str, other_seconds: float) -> None:
    print(
        f"{name}: {seconds / packets * 1e9:.2f} ns a packet; {other} {other_seconds / packets * 1e9:.2f} ns; "
        f"ratio {seconds / other_seconds:.2f} ({other_seconds / seconds:.2f}x as fast)",
        flush=True,
    )


def measure_loops(path: Path, folder: Path, rounds: int) -> None:
    """(a), (b), (c) on a mapped file beside the limit."""
    limit, mapping, count = limit_loop(folder), Mapping(path), ctypes.c_uint64()
    walkers = {name: Walker(spec) for name, spec in programs().items()}
    ways: dict[str, Callable[[], object]] = {
        "limit": lambda: limit.walk_records(mapping.address, len(mapping.buffer), ctypes.byref(count))
    }
    for name, walker in walkers.items():
        ways[name] = lambda walker=walker: walker.walk(mapping)
    seconds = interleaved(rounds, ways)
    for name in walkers:
        tell(f"loop {name} {path.stem}", seconds[name], count.value, "limit", seconds["limit"])


def large_pages(path: Path) -> float:
    """How much of a file in memory the system maps in large pages: what a window costs that is mapped anew depends on it. As time
    goes by Linux splits what a writer left behind, so traces are best written right before."""
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as whole:
        whole[:: mmap.PAGESIZE]
        told = Path("/proc/self/smaps").read_text().partition(str(path.resolve()))[2]
    size, large = (int(told.partition(f"{name}:")[2].split()[0]) for name in ("Size", "FilePmdMapped"))
    return large / size


def measure_filter(path: Path, folder: Path, rounds: int) -> None:
    """(b) from the file on beside libpcap's own loop, and how many packets each accepts."""
    pcap, count, accepted = compiled(folder, "libpcap", "-lpcap"), ctypes.c_uint64(), Totals()
    pcap.filter_file.restype = ctypes.c_int64
    walker, name = Walker(filter_spec()), str(path).encode()

    def ours() -> Totals:
        nonlocal accepted
        accepted = Totals()
        with open_capture(path) as reader:
            for window in reader.windows():
                walker.loaded.walk(window, accepted)  # type: ignore[arg-type]  # an Ethernet pcap gives windows alone
        return accepted

    ways = {"libpcap": lambda: pcap.filter_file(name, EXPRESSION.encode(), ctypes.byref(count)), "netbpf": ours}
    seconds = interleaved(rounds, ways)
    print(f"  {large_pages(path):.0%} of the file in large pages")
    tell(f"filter b {path.stem}", seconds["netbpf"], count.value, "libpcap", seconds["libpcap"])
    theirs = pcap.filter_file(name, EXPRESSION.encode(), ctypes.byref(count))
    print(f"  accepted: {accepted.accepted} as a socket sees packets, {theirs} as libpcap sees a file (tags in line)")


SCRIPT = """#!{python}
import sys
from netbpf.cli.start import main
if __name__ == '__main__':
    sys.exit(main())
"""  # what an installer makes of [project.scripts]; ``python -m`` imports runpy and its like first


def installed(folder: Path) -> str:
    """The ``netbpf`` command of an environment with netbpf and llvmlite installed, and nothing else that starts with it."""
    import llvmlite

    venv = folder / "venv"
    if not venv.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
        (site,) = venv.glob("lib/python*/site-packages")
        shutil.copytree(ROOT / "netbpf", site / "netbpf", ignore=shutil.ignore_patterns("__pycache__"))
        (site / "llvmlite").symlink_to(Path(llvmlite.__file__).parent)
    command = venv / "bin" / "netbpf"
    command.write_text(SCRIPT.format(python=venv / "bin" / "python"))
    command.chmod(0o755)
    return str(command)


def environment(folder: Path) -> dict[str, str]:
    """With byte code, and a cache of its own."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")}
    return env | {"XDG_CACHE_HOME": str(folder / "cache")}


def process(words: list[str], folder: Path, stdin: Path | None = None, feeder: list[str] | None = None) -> Callable[[], object]:
    """A whole process; ``feeder`` writes to its standard input through a pipe."""

    def run() -> None:
        fed = subprocess.Popen(feeder, stdout=subprocess.PIPE) if feeder else None
        with open(stdin or os.devnull, "rb") as source:
            given: Any = fed.stdout if fed else source
            subprocess.run(words, check=True, capture_output=True, env=environment(folder), cwd="/", stdin=given)
        if fed:
            fed.communicate()

    return run


def measure_commands(path: Path, folder: Path, rounds: int) -> None:
    """The whole process beside tcpdump, with what earlier runs left behind and without."""
    netbpf = [installed(folder), "replay", str(path)]
    words = ["--filter", *EXPRESSION.split()]
    rounds = rounds if path.stat().st_size > 1 << 28 else 4 * rounds + 1
    process([*netbpf, *words], folder)()  # the first run compiles, the second starts from what it left
    ways = {
        "tcpdump": process(["tcpdump", "-r", str(path), "--count", EXPRESSION], folder),
        "cached": process([*netbpf, *words], folder),
        "uncached": process([*netbpf, "--no-cache", *words], folder),
    }
    seconds = interleaved(rounds, ways)
    for name in ("cached", "uncached"):
        print(
            f"command {path.stem} {name}: {seconds[name] * 1e3:.1f} ms; tcpdump {seconds['tcpdump'] * 1e3:.1f} ms; "
            f"{seconds['tcpdump'] / seconds[name]:.2f}x as fast",
            flush=True,
        )


def peak_kb(words: list[str], folder: Path, stdin: Path | None = None) -> int:
    """Peak memory of a process, its share of mapped files included."""
    told = f"import resource, subprocess, sys; subprocess.run({words!r}, stdout=subprocess.DEVNULL, check=True); " + (
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    with open(stdin or os.devnull, "rb") as source:
        run = subprocess.run(
            [sys.executable, "-c", told], capture_output=True, text=True, check=True, env=environment(folder), stdin=source
        )
    return int(run.stdout)


def measure_streams(path: Path, folder: Path, rounds: int) -> None:
    """The flow counter on a file, on standard input, and through a pipe."""
    program = ["--prog", str(HERE / "programs" / "flows.s"), "--quiet", "--dump", "none"]
    netbpf = [installed(folder), "replay"]
    ways = {
        "file": process([*netbpf, str(path), *program], folder),
        "stdin": process([*netbpf, "-", *program], folder, stdin=path),
        "pipe": process([*netbpf, "-", *program], folder, feeder=["cat", str(path)]),
        "cat": process(["sh", "-c", "cat > /dev/null"], folder, feeder=["cat", str(path)]),
    }
    seconds = interleaved(rounds, ways)
    for name in ("stdin", "pipe"):
        ratio = seconds[name] / seconds["file"]
        print(f"stream {path.stem} {name}: {seconds[name]:.2f} s; file {seconds['file']:.2f} s; ratio {ratio:.2f}", flush=True)
    print(f"  cat into such a pipe, read by cat: {seconds['cat']:.2f} s")
    small = path.with_name("mixed-100k.pcap")
    if small.exists():
        for name, capture in (("100 k packets", small), ("all", path)):
            print(f"memory {name}: {peak_kb([*netbpf, str(capture), *program], folder)} KB; ", end="")
            print(f"by stdin {peak_kb([*netbpf, '-', *program], folder, stdin=capture)} KB", flush=True)


def measure_jobs(path: Path, folder: Path, rounds: int) -> None:
    """(a) and (c) on one core and on two."""
    for name, program in (("a", ROOT / "scenarios" / "counting.s"), ("c", HERE / "programs" / "flows.s")):
        netbpf = [
            installed(folder),
            "replay",
            str(path),
            "--prog",
            str(program),
            "--quiet",
            "--dump",
            "none",
        ]
        ways = {str(jobs): process([*netbpf, "--jobs", str(jobs)], folder) for jobs in (1, 2)}
        seconds = interleaved(rounds, ways)
        print(
            f"jobs {name} {path.stem}: 1: {seconds['1']:.2f} s; 2: {seconds['2']:.2f} s; {seconds['1'] / seconds['2']:.2f}x",
            flush=True,
        )


def measure_kernel(path: Path, folder: Path, rounds: int) -> None:
    """(c), ours over the whole trace, beside BPF_PROG_TEST_RUN of it on the trace's first IPv4 packet, nanoseconds a packet."""
    from netbpf.host.linux.host import LinuxHost

    with open_capture(path) as reader:
        frame = next(r.data for r in reader if r.data[12:14] == b"\x08\x00")
    try:
        kernel = LinuxHost().process()
        fds = load_spec(kernel, programs()["c"])
        runs = [kernel.prog_test_run(fds.prog_fd, frame, repeat=1_000_000).duration_ns for _ in range(rounds)]
    except Exception as e:
        print(f"kernel: not measured: {e}")
        return
    walker, mapping = Walker(programs()["c"]), Mapping(path)
    packets = walker.walk(mapping).packets
    seconds = interleaved(rounds, {"ours": lambda: walker.walk(mapping)})["ours"]
    theirs = statistics.median(runs)
    print(
        f"kernel c {path.stem}: {seconds / packets * 1e9:.1f} ns a packet; the kernel's JIT {theirs:.0f} ns on one packet",
        flush=True,
    )


def measure_object(name: str, built: str, path: Path, rounds: int) -> None:
    """One of the tests' objects, by native code and by the interpreter."""
    spec = read_program(str(ROOT / "tests" / "data" / "objects" / built))
    walker, mapping = Walker(spec), Mapping(path)
    packets = walker.walk(mapping).packets
    with open_capture(path) as reader:
        batch = PacketBatch.from_records(list(islice(reader, INTERPRETED_PACKETS)))
    loaded = Walker(spec, InterpEngine()).loaded
    seconds = interleaved(rounds, {"ours": lambda: walker.walk(mapping), "interp": lambda: loaded.run(batch)})
    tell(f"{name} {path.stem}", seconds["ours"], packets, "interpreter", seconds["interp"] * packets / len(batch))


def measure_inner(path: Path, folder: Path, rounds: int) -> None:
    """Packets counted in maps inside maps."""
    measure_object("inner", "map_in_map.o", path, rounds)


def measure_tail_calls(path: Path, folder: Path, rounds: int) -> None:
    """Flows counted by programs that reach each other by tail calls: two a packet, three of one with a tag."""
    measure_object("tails", "flow_tail_calls.o", path, rounds)


MEASUREMENTS = {
    "loop": measure_loops, "filter": measure_filter, "command": measure_commands, "streams": measure_streams,
    "jobs": measure_jobs, "kernel": measure_kernel, "inner": measure_inner,
    "tails": measure_tail_calls,
}  # fmt: skip
OF_SMALL_FILES = frozenset({"command", "inner", "tails"})
OF_MIXED_FILES = frozenset({"streams", "jobs"})
SMALL_FILE_BYTES = 1 << 28


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--traces", type=Path, required=True, help="where benchmarks.traces wrote")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--only", choices=sorted(MEASUREMENTS))
    p.add_argument("files", nargs="*", help="names of traces, all by default")
    a = p.parse_args()
    paths = [a.traces / n for n in a.files] or sorted(a.traces.glob("*.pcap"))
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            for name, measure in MEASUREMENTS.items():
                wanted = a.only in (None, name) and (name not in OF_MIXED_FILES or path.stem == "mixed")
                if wanted and (name in OF_SMALL_FILES or path.stat().st_size > SMALL_FILE_BYTES):
                    measure(path, Path(folder), a.rounds)


if __name__ == "__main__":
    main()
