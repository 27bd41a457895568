"""Compiled objects on disk, so that the second run of a program starts without llvmlite.

One file an object in the user's cache folder ($XDG_CACHE_HOME/netbpf or ~/.cache/netbpf), named by the digest of all that the
code depends on. An entry that is damaged, another user's, or open to others' writing is ignored, never run.

    "netbpf native 2\\n" | sha256 of the rest (32) | flags u32 | object
"""

from __future__ import annotations

import os

from netbpf.engine.llvm.digest import sha256

MAGIC = b"netbpf native 2\n"
FLAG_CALLS_BACK, FLAG_CHECKED = 1, 2
MAX_ENTRY_BYTES = 64 << 20


class Entry:
    """An object and what Python must know to run it."""

    __slots__ = ("calls_back", "code", "is_checked")

    def __init__(self, code: bytes, calls_back: bool, is_checked: bool) -> None:
        self.code, self.calls_back, self.is_checked = code, calls_back, is_checked


def cache_dir() -> str:
    """The folder; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return os.path.join(base if os.path.isabs(base) else os.path.expanduser("~/.cache"), "netbpf")


def read(key: str) -> Entry | None:
    """The entry under ``key``, or None where there is none that may be run."""
    rest = read_bytes(key)
    if rest is None or len(rest) < 4:
        return None
    flags = int.from_bytes(rest[:4], "little")
    return Entry(rest[4:], bool(flags & FLAG_CALLS_BACK), bool(flags & FLAG_CHECKED))


def read_bytes(key: str) -> bytes | None:
    """What was written under ``key``, or None where nothing there may be trusted."""
    try:
        with open(os.path.join(cache_dir(), key), "rb") as f:
            status = os.fstat(f.fileno())
            if status.st_uid != os.getuid() or status.st_mode & 0o022 or status.st_size > MAX_ENTRY_BYTES:
                return None
            data = f.read()
    except OSError:
        return None
    digest, rest = data[len(MAGIC) : len(MAGIC) + 32], data[len(MAGIC) + 32 :]
    return rest if data.startswith(MAGIC) and sha256(rest).digest() == digest else None


def write(key: str, entry: Entry) -> None:
    """Keep an entry."""
    flags = FLAG_CALLS_BACK * entry.calls_back | FLAG_CHECKED * entry.is_checked
    write_bytes(key, flags.to_bytes(4, "little") + entry.code)


def write_bytes(key: str, rest: bytes) -> None:
    """Keep bytes; a cache that can't be written is no error."""
    import tempfile

    data = MAGIC + sha256(rest).digest() + rest
    try:
        folder = cache_dir()
        os.makedirs(folder, mode=0o700, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=folder)  # mode 0600
        try:
            with os.fdopen(fd, "wb") as f:
                f.write(data)
            os.replace(name, os.path.join(folder, key))
        except BaseException:
            os.unlink(name)
            raise
    except OSError:
        return
