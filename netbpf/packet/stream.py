"""The bytes of a capture, from a file, a pipe or a gzip stream, as one moving window.

Knows files, pipes and zlib; knows no capture format. Reads in 512 KB pieces: such a piece is still in the CPU's cache
when its packets are walked. What is held at once is bounded by what was asked for *and* has arrived: a header that claims
4 GB makes nobody allocate 4 GB.

A large regular file is not copied but mapped. Its pages are brought in 8 MB at a time (page faults one by one would cost
more than reading) and let go behind the window, both at multiples of 2 MB, where the system may map them in one piece.
"""

from __future__ import annotations

import mmap
import os
import stat
import sys
import zlib
from typing import Any, BinaryIO, Protocol

from netbpf.errors import CaptureError, UsageError

PIECE_BYTES = 512 * 1024
PIPE_BYTES = 1024 * 1024  # Linux gives no more by default
MAPPED_BYTES = 16 * 1024 * 1024
HUGE_PAGE_BYTES = 2 * 1024 * 1024
MAPPED_FROM_BYTES = 1024 * 1024  # smaller files are read
AROUND_BYTES = 64 * 1024  # what Linux maps around a page that is touched, where it has it
GZIP_MAGIC = b"\x1f\x8b"
GZIP_PIECE_BYTES = 64 * 1024


class Source(Protocol):
    """Where pieces come from: each call gives at least one byte, or none at the end."""

    @property
    def taken(self) -> int:
        """Bytes taken from the underlying file so far."""

    def read(self, n: int) -> bytes: ...

    def readinto(self, room: memoryview) -> int: ...

    def close(self) -> None: ...


class FileSource:
    """A binary file object: a raw or buffered file, a pipe, ``BytesIO``, or anything with ``read(n)``."""

    def __init__(self, file: Any, path: str, *, owned: bool) -> None:
        self._file, self._path, self._owned = file, path, owned
        self._read = getattr(file, "read1", file.read)  # read1 gives what a pipe has; read waits for all n
        self._readinto = getattr(file, "readinto1", getattr(file, "readinto", None))
        self.taken = 0

    def read(self, n: int) -> bytes:
        piece = self._read(n)
        if not isinstance(piece, bytes | bytearray):
            got = type(piece).__name__
            raise UsageError(f"{self._path}: a capture is read from a blocking binary stream, this one gave {got}")
        self.taken += len(piece)
        return bytes(piece)

    def readinto(self, room: memoryview) -> int:
        if self._readinto is None:
            piece = self.read(len(room))
            room[: len(piece)] = piece
            return len(piece)
        count = self._readinto(room)
        if count is None:
            raise UsageError(f"{self._path}: a capture is read from a blocking stream")
        self.taken += count
        return int(count)

    def close(self) -> None:
        if self._owned:
            self._file.close()


class GzipSource:
    """The decompressed bytes of a gzip stream of one or more members; ``head`` was read from ``inner`` before.

    Raises CaptureError, its offset counted in the compressed file, where the stream is damaged or cut.
    """

    def __init__(self, inner: Source, path: str, head: bytes) -> None:
        self._inner, self._path, self._pending = inner, path, head
        self._member = zlib.decompressobj(wbits=31)

    @property
    def taken(self) -> int:
        """Bytes of the compressed file that were decompressed so far."""
        return self._inner.taken - len(self._pending)

    def read(self, n: int) -> bytes:
        while True:
            if self._member.eof and not self._next_member():
                return b""
            if not self._pending and not self._member.eof:
                self._pending = self._inner.read(GZIP_PIECE_BYTES)
                if not self._pending:
                    raise self._error("gzip stream is cut", "the rest of the stream", "end of file")
            piece = self._decompress(n)
            if piece:
                return piece

    def readinto(self, room: memoryview) -> int:
        piece = self.read(len(room))
        room[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._inner.close()

    def _decompress(self, n: int) -> bytes:
        try:
            piece = self._member.decompress(self._pending, n)
        except zlib.error as e:
            raise self._error("gzip stream is damaged", "deflated data", str(e)) from e
        self._pending = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        return piece

    def _next_member(self) -> bool:
        """Whether another member follows; zero padding and trailing bytes that start none are skipped, as gzip does."""
        while len(self._pending) < 2 and (more := self._inner.read(GZIP_PIECE_BYTES)):
            self._pending += more
        if not self._pending.startswith(GZIP_MAGIC):
            return False
        self._member = zlib.decompressobj(wbits=31)
        return True

    def _error(self, message: str, wanted: str, got: str) -> CaptureError:
        return CaptureError(message, path=self._path, offset=self.taken, wanted=wanted, got=got)


class ByteStream:
    """A window ``buffer[start:end]`` on a byte source; ``base`` is the offset in the capture of ``buffer[0]``.

    ``fill`` leaves ``buffer`` an immutable ``bytes`` of its own, so slices of it are cheap and may be kept;
    ``fill_window`` moves the window through one reused ``bytearray``, for a native loop that keeps nothing.
    Whoever walks the window moves ``start``.
    """

    def __init__(self, source: Source, path: str, *, head: bytes = b"", total_bytes: int | None = None) -> None:
        self.path, self.total_bytes = path, total_bytes
        self.buffer: bytes | bytearray | mmap.mmap = head
        self.start, self.end, self.base = 0, len(head), 0
        self.at_end = False
        self._source = source
        self._damage: CaptureError | None = None
        self._window = bytearray()

    @property
    def offset(self) -> int:
        """Bytes of the (decompressed) capture consumed so far."""
        return self.base + self.start

    @property
    def available(self) -> int:
        """Bytes in the window."""
        return self.end - self.start

    @property
    def taken(self) -> int:
        """Bytes of the file itself behind what was consumed; of a gzip stream, what was decompressed so far."""
        return self._source.taken if isinstance(self._source, GzipSource) else self.offset

    def fill(self, want: int) -> int:
        """Read on until ``want`` bytes are in the window or the source ends; gives how many are there."""
        have = self.end - self.start
        if have >= want and isinstance(self.buffer, bytes):
            return have
        pieces = [bytes(memoryview(self.buffer)[self.start : self.end])]
        while have < want and not self.at_end:
            piece = self._read_piece()
            pieces.append(piece)
            have += len(piece)
        self.base += self.start
        self.buffer = b"".join(pieces)
        self.start, self.end = 0, have
        return have

    def fill_window(self) -> int:
        """Move what is left to the front of the reused window and read one piece behind it; gives how many bytes are
        there now. No view of the window may be alive."""
        have = self.end - self.start
        if len(self._window) < have + PIECE_BYTES:
            self._window = bytearray(2 * have + PIECE_BYTES)
        window = self._window
        with memoryview(self.buffer) as old:
            rest = bytes(old[self.start : self.end])
        window[:have] = rest
        self.base += self.start
        self.buffer = window
        self.start, self.end = 0, have
        if not self.at_end:
            with memoryview(window) as whole, whole[have : have + PIECE_BYTES] as room:
                self.end += self._read_into(room)
        return self.end

    def raise_damage(self) -> None:
        """Raise what ended the source before its time (a cut gzip stream), if anything did."""
        if self._damage is not None:
            raise self._damage

    def close(self) -> None:
        self._source.close()

    def _read_piece(self) -> bytes:
        try:
            piece = self._source.read(PIECE_BYTES)
        except CaptureError as damage:
            self._damage, piece = damage, b""
        self.at_end = not piece
        return piece

    def _read_into(self, room: memoryview) -> int:
        try:
            count = self._source.readinto(room)
        except CaptureError as damage:
            self._damage, count = damage, 0
        self.at_end = not count
        return count


class MappedStream(ByteStream):
    """The same on a regular file, open as ``fd`` and read from ``first``: ``fill_window`` maps, ``fill`` reads."""

    def __init__(self, source: Source, path: str, fd: int, *, head: bytes, first: int, total_bytes: int) -> None:
        super().__init__(source, path, head=head, total_bytes=total_bytes)
        self.fd, self.first, self._most = fd, first, MAPPED_BYTES
        self._map: mmap.mmap | None = None
        self._populated = self._released = 0  # pages between them are in

    def fill(self, want: int) -> int:
        have = self.end - self.start
        if have >= want and isinstance(self.buffer, bytes):
            return have
        at, pieces, size = self.offset, list[bytes](), 0
        while size < want:
            piece = os.pread(self.fd, PIECE_BYTES, self.first + at + size)
            if not piece:
                self.at_end = True
                break
            pieces.append(piece)
            size += len(piece)
        self.buffer, self.base, self.start, self.end = b"".join(pieces), at, 0, size
        return size

    def fill_window(self) -> int:
        at, whole = self.first + self.offset, self._whole()
        if self.buffer is whole and self.start == at and self.end - at >= self._most // 2:
            self._most *= 2  # nothing of the last window was walked: its first record is longer
        end = min(len(whole), (at + self._most) // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES + HUGE_PAGE_BYTES)
        if end <= at:
            self.fill(1)
            return self.end
        self._bring_in(whole, at // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES, end)
        self.buffer, self.base, self.start, self.end = whole, -self.first, at, end
        return end

    def _whole(self) -> mmap.mmap:
        """The file as long as it is now. Private and writable, though nobody writes: native code asks for an address, which a
        read-only map does not give."""
        size = os.fstat(self.fd).st_size
        if self._map is None or len(self._map) != size:
            self._map = mmap.mmap(self.fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
            self._populated = self._released = 0
        return self._map

    def _bring_in(self, whole: mmap.mmap, first: int, end: int) -> None:
        """Have the pages of [first, end) at hand and no others."""
        if first > self._released:
            whole.madvise(mmap.MADV_DONTNEED, self._released, first - self._released)
        self._released = first
        begin = max(first, self._populated)
        if end > begin:
            # a touch a round takes the system half the time of MADV_POPULATE_READ, which goes through every page
            whole[begin:end:AROUND_BYTES]
            self._populated = end // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES


def open_stream(source: str | os.PathLike[str] | BinaryIO) -> ByteStream:
    """A stream on a path, on a binary file object (left open at the end), or on standard input (``"-"``).

    gzip is recognised by its magic. An OSError of the opening or reading passes through; a file that ends at once is an
    empty stream.
    """
    file, path, owned = _open_source(source)
    _widen_pipe(file)
    inner = FileSource(file, path, owned=owned)
    try:
        head = inner.read(PIECE_BYTES)
        while 0 < len(head) < 4 and (more := inner.read(PIECE_BYTES)):
            head += more
    except BaseException:
        inner.close()
        raise
    total = _regular_size(file)
    if head.startswith(GZIP_MAGIC):
        return ByteStream(GzipSource(inner, path, head), path, total_bytes=total)
    if total is not None and total >= MAPPED_FROM_BYTES and sys.platform == "linux" and isinstance(source, str | os.PathLike):
        # a file named by its path, or standard input; a caller's own object may be anything, and moves as it is read
        return MappedStream(inner, path, file.fileno(), head=head, first=file.tell() - len(head), total_bytes=total)
    return ByteStream(inner, path, head=head, total_bytes=total)


def _open_source(source: str | os.PathLike[str] | BinaryIO) -> tuple[Any, str, bool]:
    if isinstance(source, str) and source == "-":
        return sys.stdin.buffer, "-", False
    if isinstance(source, str | os.PathLike):
        return open(source, "rb", buffering=0), os.fspath(source), True
    if not hasattr(source, "read"):
        raise UsageError(f"a capture is a path, a binary file object or '-', not {type(source).__name__}")
    return source, str(getattr(source, "name", "<stream>")), False


def _widen_pipe(file: Any) -> None:
    """Let a pipe hold as much as an ordinary user may ask for: each read takes what is there, and has its price."""
    try:
        if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            import fcntl

            fcntl.fcntl(file.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except (AttributeError, OSError, ValueError):
        return  # no pipe, no Linux, or no more to be had


def _regular_size(file: Any) -> int | None:
    """Size of a regular file, None for a pipe or anything without a descriptor."""
    try:
        status = os.fstat(file.fileno())
    except (AttributeError, OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
