"""LLVM in a process of its own, which comes up on another core while the program is still being read and proved.

Loading LLVM takes longer than most of what a short run does. ``begin`` forks a process that loads it and waits for a module;
``compile_object`` hands it over, or compiles here where none waits. Whatever goes wrong over there is tried again here.
Imports next to nothing, so that LLVM begins soon: typing takes as long as Python itself.
"""

from __future__ import annotations

import os
import sys

from netbpf.engine.llvm.effort import THOROUGH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

PIECE: Final = 1 << 16
SIZE_BYTES: Final = 8
WARM_UP: Final = """
define i64 @run(ptr %a) {
  %room = alloca i64
  br label %loop
loop:
  %i = phi i64 [ 0, %0 ], [ %next, %loop ]
  store i64 %i, ptr %room
  %next = add i64 %i, 8
  %at = getelementptr i8, ptr %a, i64 %next
  %value = load i64, ptr %at
  %more = icmp ult i64 %next, %value
  br i1 %more, label %loop, label %done
done:
  %last = load i64, ptr %room
  ret i64 %last
}
"""  # what is compiled first waits for LLVM's own pages: a loop for nothing, while the program is not there yet


class _Path(str):
    """A path as ``importlib.resources`` gives it, to be had at once."""

    def __truediv__(self, name: str) -> _Path:
        return _Path(os.path.join(self, name))

    def __enter__(self) -> _Path:
        return self

    def __exit__(self, *_: object) -> None:
        return


class _Waiting:
    """A process that reads a module from ``text`` up to its end and writes the object to ``made``, its size before it."""

    def __init__(self, effort: int, pid: int, text: int, made: int) -> None:
        self.effort, self.pid, self.text, self.made = effort, pid, text, made


_waiting: _Waiting | None = None


def begin(*, effort: int = THOROUGH) -> None:
    """Have LLVM come up, if there is a core to do it on. For commands that own their process: it must have one thread."""
    global _waiting
    threading = sys.modules.get("threading")
    if _waiting is not None or len(os.sched_getaffinity(0)) < 2 or (threading and threading.active_count() > 1):
        return
    try:
        text_out, text_in = os.pipe()
        made_out, made_in = os.pipe()
        pid = os.fork()
    except OSError:  # no more processes, no more descriptors: it is done here
        return
    if not pid:
        os.close(text_in)
        os.close(made_out)
        _serve(text_out, made_in, effort)
    os.close(text_out)
    os.close(made_in)
    _waiting = _Waiting(effort, pid, text_in, made_out)


def _serve(text: int, made: int, effort: int) -> NoReturn:
    """The other process: one module."""
    try:
        import signal

        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):  # whoever reads what the command says waits for all that hold its end
            os.dup2(nothing, standard)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # what is said of it is said where the command runs
        _without_resources()
        from netbpf.engine.llvm.compile import compile_object

        compile_object(WARM_UP, effort=effort)
        module = _read(text)
        if module:
            code = compile_object(module.decode(), effort=effort)
            _write(made, len(code).to_bytes(SIZE_BYTES, "little") + code)
    finally:
        os._exit(0)


def _without_resources() -> None:
    """Of ``importlib.resources`` llvmlite wants the path of its library. The module itself brings archives, temporary folders and
    URLs along, which take longer than LLVM does; who needs those is not in this process."""
    resources = type(sys)("importlib.resources")
    vars(resources).update(files=lambda package: _Path(sys.modules[package].__path__[0]), as_file=lambda path: path)
    sys.modules.setdefault("importlib.resources", resources)


def compile_object(text: str, *, effort: int = THOROUGH) -> bytes:
    """The object file of an LLVM module. Raises RuntimeError with LLVM's words where the text is not valid."""
    made = _elsewhere(text) if _waiting is not None and _waiting.effort == effort else b""
    if made:
        return made
    from netbpf.engine.llvm.compile import compile_object

    return compile_object(text, effort=effort)


def _elsewhere(text: str) -> bytes:
    """What the waiting process makes of it; b"" where there is none, or it did not."""
    global _waiting
    waiting, _waiting = _waiting, None
    if waiting is None:
        return b""
    try:
        _write(waiting.text, text.encode())
        os.close(waiting.text)
        made = _read(waiting.made, SIZE_BYTES)
        size = int.from_bytes(made, "little")
        made = _read(waiting.made, size)
    except BrokenPipeError:
        os.close(waiting.text)
        size, made = 1, b""
    os.close(waiting.made)
    if len(made) == size:
        os.waitpid(waiting.pid, os.WNOHANG)  # it lets go of LLVM, which takes a while
        return made
    os.waitpid(waiting.pid, 0)
    return b""


def _read(fd: int, size: int = 1 << 62) -> bytes:
    """As many bytes, or all there are."""
    pieces, left = [], size
    while left and (piece := os.read(fd, min(left, PIECE))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
