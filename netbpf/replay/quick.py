"""The quick start of ``netbpf replay``: a program that was compiled before, on a plain pcap, with next to nothing imported.

A replay that asks for nothing but totals of a program without maps and calls leaves behind what the next one needs: the machine
code as it lies in memory, the argument block, and the words it was asked for with. ``run`` takes it where all of that is the same
(this package's sources and libpcap, too), and does what the ordinary way would do, to the same lines; of a tcpdump expression
alone it has what is needed made (``first``). Whatever is out of the ordinary makes it answer None before it prints: then the
ordinary way runs. Knows argv, pcap's header and the engine's argument block; must import no module that takes time.
"""

from __future__ import annotations

import _ctypes
import _thread
import marshal
import mmap
import os
import sys
import time

from netbpf.engine.llvm import cache
from netbpf.engine.llvm.digest import sha256
from netbpf.replay.lines import totals_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

EX_IOERR, EX_INTERRUPTED = 74, 130
FILE_HEADER, RECORD_HEADER = 24, 16
LINKTYPE_ETHERNET, MAX_SNAPLEN = 1, 262144
UNITS = {b"\xd4\xc3\xb2\xa1\x02\0\x04\0": 1000, b"\x4d\x3c\xb2\xa1\x02\0\x04\0": 1}
"""The first 8 bytes of a little-endian pcap of version 2.4, and the nanoseconds in a unit of its fractions."""

PIECE = 16 << 20
TERMINAL_FROM = 64 << 20  # larger files take long enough to see how they go
LARGE_FROM = 128 << 20  # and may have code with scouts, see engine.llvm.scouting
WORTH_ONCE = 8 << 30  # even if it is thrown away
SAMPLE_BYTES = 1 << 16
AROUND_BYTES = 64 << 10  # what Linux maps around a page that is touched; see packet.stream
MADV_DONTNEED = 4
NO_LIMIT, NEVER = 1 << 62, (1 << 64) - 1
STATUS_END = 0
MAX_PROGRAM_BYTES = 1 << 20
ROOMS_OF_FILTERS = ("abi", "engine/llvm", "isa", "packet", "replay", "sources")
FACTS_OF_FILTERS = "verifier/classic.py"  # the verifier itself is asked about other programs
TOLD = frozenset({"command", "captures", "prog", "filter", "view", "optimize", "quiet", "dump", "interval", "seed"})
"""Options that may be anything: an interval has no line where no map counts, and no map is dumped."""

USUAL = (("backend", "sim"), ("jobs", 1))
"""What options say that were not given, where that is something."""

# words of tcpdump's expressions that mean the same whenever they are compiled: names of hosts, networks and services do not
WORDS = frozenset(
    "ip ip6 arp rarp icmp icmp6 igmp tcp udp sctp ether vlan mpls proto host net port portrange src dst and or not less greater "
    "broadcast multicast len mask inbound outbound".split()
)


class _U64(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "Q"


class _U8(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "B"


class _Run(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL
    _restype_ = _U64
    _argtypes_ = (_U64,)


class _Madvise(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL
    _restype_ = _U64
    _argtypes_ = (_U64, _U64, _U64)


# --- what is left behind -------------------------------------------------------------------------------------------------------
def _sources(words: list[str]) -> list[tuple[str, int, int]]:
    """What tells one version of the files that a program's code and counts come from from another."""
    root = os.path.dirname(os.path.dirname(__file__))
    facts = os.path.join(root, FACTS_OF_FILTERS)
    status = os.stat(facts)
    found, folders = [(facts, status.st_size, status.st_mtime_ns)], [os.path.join(root, room) for room in ROOMS_OF_FILTERS]
    if "--prog" in words:
        folders.append(os.path.join(root, "verifier"))
    while folders:
        with os.scandir(folders.pop()) as entries:
            for e in entries:
                if e.name.endswith(".py"):
                    status = e.stat()
                    found.append((e.path, status.st_size, status.st_mtime_ns))
                elif "." not in e.name and e.name != "__pycache__" and e.is_dir():
                    folders.append(e.path)
    return sorted(found)


def _key(words: list[str], scouted: bool) -> str:
    """The name of what was left behind for these words (those of the command, without the capture), with scouts or without; ""
    where nothing can be."""
    text = b""
    if "--prog" in words[:-1]:
        path = words[words.index("--prog") + 1]
        if path == "-" or not os.path.isfile(path) or os.path.getsize(path) > MAX_PROGRAM_BYTES:
            return ""
        with open(path, "rb") as f:
            text = f.read()
    return "quick-" + sha256(repr((words, text, scouted, sys.version, os.uname().machine)).encode()).hexdigest()


def _is_steady(expression: list[str]) -> bool:
    """Whether an expression means the same whenever it is compiled: no name in it is looked up."""
    text = " ".join(expression)
    for sign in "()[]!&|=<>+-*/:,":
        text = text.replace(sign, " ")
    return all(word in WORDS or word[0].isdigit() for word in text.split())


def leave(args: argparse.Namespace, loaded: Any) -> None:
    """After a replay by the ordinary way: leave behind what ``run`` needs, where such a replay is one of its."""
    argv = sys.argv[1:]
    words = argv[2:]
    plain = len(argv) > 2 and argv[0] == "replay" and args.captures == [argv[1]] and argv[1] != "-"
    others = {name: value for name, value in vars(args).items() if name not in TOLD}
    if not plain or any(value and (name, value) not in USUAL for name, value in others.items()):
        return
    while hasattr(loaded, "of_linktype"):  # an expression holds a program for each link type
        loaded = loaded.of_linktype(LINKTYPE_ETHERNET)
    left = loaded.left_behind() if hasattr(loaded, "left_behind") else None
    if left is None:
        return
    with open(argv[1], "rb") as f:
        scouted = _wants_scouts(f.fileno())
    _leave(words, scouted, args.filter or [], left)


def _wants_scouts(fd: int, least: int = LARGE_FROM) -> bool:
    """Whether the records of a capture of so many bytes at least are large."""
    if os.fstat(fd).st_size < least:
        return False
    from netbpf.engine.llvm.scouting import pays

    data = os.pread(fd, SAMPLE_BYTES, FILE_HEADER)
    return pays(data, 0, len(data))


def _leave(words: list[str], scouted: bool, expression: list[str], left: tuple[Any, ...] | None) -> None:
    key = _key(words, scouted)
    if left is not None and key and _is_steady(expression):
        cache.write_bytes(key, marshal.dumps((_sources(words), _libraries(), *left)))


def _libraries() -> list[tuple[str, int, int]]:
    """The file of libpcap in this process, whose update may compile an expression otherwise."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as f:
        paths = {line.split(maxsplit=5)[-1].rstrip("\n") for line in f if "libpcap" in line}
    return [(path, os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in sorted(paths) if os.path.isfile(path)]


# --- the quick start -----------------------------------------------------------------------------------------------------------
def run(argv: list[str]) -> int | None:
    """Replay as the words say; the exit code, or None where the ordinary way has to."""
    try:
        if len(argv) < 3 or argv[1].startswith("-"):
            return None
        return _replay(argv[1], argv[2:])
    except KeyboardInterrupt:
        return EX_INTERRUPTED
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, AttributeError):
        return None


def _found(words: list[str], scouted: bool) -> tuple[Any, ...] | None:
    """Code, functions of libc in it, argument block, context, and where things are in the block."""
    key = _key(words, scouted)
    data = cache.read_bytes(key) if key else None
    if data is None:
        return None
    sources, libraries, *rest = marshal.loads(data)
    if sources != _sources(words) or any((os.stat(p).st_size, os.stat(p).st_mtime_ns) != (s, t) for p, s, t in libraries):
        return None
    return tuple(rest)


def _made(words: list[str], scouted: bool, use_cache: bool, is_huge: bool) -> tuple[Any, ...] | None:
    """The same made anew, where the words are an expression and no option but ``--no-cache``."""
    option, *expression = words if use_cache else words[1:]
    if option != "--filter" or not expression or any(word.startswith("-") for word in expression):
        return None
    from netbpf.engine.llvm.compiler import begin
    from netbpf.engine.llvm.effort import BRISK, THOROUGH

    effort = THOROUGH if use_cache or is_huge else BRISK
    begin(effort=effort)
    from netbpf.replay.first import made

    left = made(" ".join(expression), scouted=scouted, use_cache=use_cache, effort=effort)
    if use_cache:
        _leave(words, scouted, expression, left)
    return left


def _replay(path: str, words: list[str]) -> int | None:
    fd = os.open(path, os.O_RDONLY)
    head, size = os.pread(fd, FILE_HEADER + RECORD_HEADER, 0), os.fstat(fd).st_size
    unit = UNITS.get(head[:8], 0)
    if not unit or len(head) < FILE_HEADER + RECORD_HEADER or int.from_bytes(head[20:22], "little") != LINKTYPE_ETHERNET:
        return None
    if size > TERMINAL_FROM and sys.stderr.isatty():
        return None
    use_cache = words[:1] != ["--no-cache"]
    scouted = _wants_scouts(fd, LARGE_FROM if use_cache else WORTH_ONCE)
    found = (_found(words, scouted) if use_cache else None) or _made(words, scouted, use_cache, size >= WORTH_ONCE)
    if found is None:
        return None
    image, entry, stubs, block, meta, fields = found
    started = time.perf_counter()
    snaplen = int.from_bytes(head[16:20], "little")
    if not 0 < snaplen < 1 << 31:
        snaplen = MAX_SNAPLEN
    code = _code(image, stubs)
    capture = mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    args, context = bytearray(block), bytearray(meta)
    row = memoryview(args).cast("Q")
    for name, value in (
        ("buf", _address(capture)), ("meta", _address(context)), ("snaplen", snaplen), ("ts_scale", unit), ("stop_ns", NEVER),
        ("max_packets", NO_LIMIT), ("out_used", 0),
    ):  # fmt: skip
        row[fields[name]] = value
    walk, at = _Run(_address(code) + entry), _address(args)
    counts, interrupted = _walk(walk, at, row, fields, capture, size)
    if counts is None:
        return None
    first = int.from_bytes(head[24:28], "little") * 1_000_000_000 + int.from_bytes(head[28:32], "little") * unit
    trace = max(0, counts[5] - first) / 1e9 if counts[0] else 0.0
    return _tell(counts, trace, time.perf_counter() - started, interrupted)


def _code(image: bytes, stubs: list[tuple[int, str]]) -> mmap.mmap:
    """Executable memory with the code, its jumps into libc filled in."""
    code = mmap.mmap(-1, len(image), flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code[:] = image
    for at, name in stubs:
        code[at : at + 8] = _libc(name).to_bytes(8, sys.byteorder)
    return code


def _libc(name: str) -> int:
    process: Any = None  # this process, where libc is
    return int(_ctypes.dlsym(_ctypes.dlopen(process, 0), name))


def _address(buffer: Any) -> int:
    return _ctypes.addressof(_U8.from_buffer(buffer))


class _Pages:
    """The pages of a mapped capture, a piece brought in while the one before is walked, and let go behind it. Pieces begin at
    multiples of PIECE, where the system may map large pages. With more than one piece a second thread does it."""

    def __init__(self, capture: mmap.mmap, size: int) -> None:
        self._capture, self._at, self._size = capture, _address(capture), size
        self._madvise = _Madvise(_libc("madvise"))  # without the interpreter's lock, which mmap.madvise would keep
        self._wanted, self._there = _thread.allocate_lock(), _thread.allocate_lock()
        self._threaded = size > PIECE
        if self._threaded:
            self._wanted.acquire()
            self._there.acquire()
            _thread.start_new_thread(self._serve, ())

    def _bring(self, first: int) -> None:
        self._capture[first : first + PIECE : AROUND_BYTES]

    def _serve(self) -> None:
        for first in range(0, self._size, PIECE):
            self._wanted.acquire()
            self._bring(first)
            self._there.release()
            if first >= 3 * PIECE:
                self._madvise(self._at + first - 3 * PIECE, PIECE, MADV_DONTNEED)

    def ask(self) -> None:
        """Have the next piece brought in."""
        if self._threaded:
            self._wanted.release()
        else:
            self._bring(0)

    def wait(self) -> None:
        """Until the piece that was asked for last is there."""
        if self._threaded:
            self._there.acquire()


def _walk(
    walk: Any, at: int, words: memoryview, fields: dict[str, int], capture: mmap.mmap, size: int
) -> tuple[tuple[int, int, int, int, int, int] | None, bool]:
    """Packets, bytes, accepted, trimmed, dropped and the latest time, and whether it was interrupted; None where a record is odd
    or the last one is cut."""
    packets = total = accepted = trimmed = last_ns = end = 0
    position, status, pages = FILE_HEADER, STATUS_END, _Pages(capture, size)
    try:
        pages.ask()
        while end < size and status == STATUS_END:
            pages.wait()
            end = min(size, end + PIECE)
            if end < size:
                pages.ask()
            words[fields["pos"]], words[fields["end"]] = position, end
            walk(at)
            position, status = words[fields["pos"]], words[fields["status"]]
            packets += words[fields["packets"]]
            total += words[fields["bytes"]]
            accepted += words[fields["accepted"]]
            trimmed += words[fields["trimmed"]]
            last_ns = max(last_ns, words[fields["last_ns"]])
    except KeyboardInterrupt:
        return (packets, total, accepted, trimmed, packets - accepted, last_ns), True
    if position != size:
        return None, False
    return (packets, total, accepted, trimmed, packets - accepted, last_ns), False


def _tell(counts: tuple[int, int, int, int, int, int], trace: float, seconds: float, interrupted: bool) -> int:
    try:
        os.write(1, (totals_lines(counts[:5], trace, seconds, "native") + "\n").encode())
    except OSError:
        return EX_IOERR
    if not interrupted:
        return 0
    os.write(2, b"netbpf: interrupted: what is told above is what was done\n")
    return EX_INTERRUPTED
