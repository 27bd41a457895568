"""A stand-in for libpcap's testprogs/filtertest, so that libpcap's TESTrun judges netbpf:

    FILTERTEST_BIN=scripts/filtertest perl testprogs/TESTrun

    filtertest [-dlOq] [-S unswapped|swapped] [-F FILE] [-m NETMASK] [-s SNAPLEN] DLT [EXPRESSION]     print the filter
    filtertest [-O] [-F FILE] [-m NETMASK] -r SAVEFILE [EXPRESSION]                    its verdict on each packet of a file
    filtertest [-dq] -i CBPF                 filtertest -i CBPF -r SAVEFILE                       the same for a compiled filter

libpcap compiles; what it made is checked by the rules of its validator, the capture is read by netbpf, and the filter runs on
netbpf's interpreter in the view of a file. Nothing is proved: as in libpcap, a filter may loop. Messages and exit codes are
filtertest's. Started once per case, so it imports little.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

EX_OK, EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_SOFTWARE, EX_OSERR, EX_IOERR = 0, 64, 65, 66, 70, 71, 74
MAXIMUM_SNAPLEN: Final = 262144
MAX_STDIN: Final = 64 * 1024
NETMASK_UNKNOWN: Final = 0xFFFF_FFFF
WITH_VALUE: Final = "iFmsSr"
WITHOUT_VALUE: Final = "hdgOlq"
INTEGER: Final = re.compile(r"\s*([+-]?)(0[xX][0-9a-fA-F]+|[0-9]+)\Z", re.ASCII)  # of C's strtol, all of the word
CBPF_HEADER_BYTES: Final = 20
CBPF_HEADER_START: Final = b"\xa1\xb2\xc3\xcbcBPF\x01"
USAGE: Final = """Usage: {name} [-dlOq] [-S {{unswapped|swapped}}] [-F <file>] [-m <netmask>]
       [-s <snaplen>] <DLT> [<expression>]
       (compile a filter expression, validate and print the program)
  or:  {name} [-O] [-F <file>] [-m <netmask>] -r <file> [<expression>]
       (compile a filter expression, validate the program and print its
       verdict on each packet of the savefile)
  or:  {name} [-dq] -i <file>
       (load, validate and print a filter program)
  or:  {name} -i <file> -r <file>
       (load a filter program and print its verdict on each packet)
  or:  {name} -h
"""


class Failed(Exception):
    """Ends the run: the message for stderr and the exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Options:
    """The words of the command line; ``words`` are those that are no options."""

    words: list[str] = field(default_factory=list)
    flags: str = ""  # a letter for each option without a value, as often as it was given
    values: dict[str, str] = field(default_factory=dict)
    netmask: int = NETMASK_UNKNOWN
    snaplen: int = MAXIMUM_SNAPLEN

    @property
    def dump_style(self) -> int:
        """1: -d, 2: -dd, 3: -ddd; one -d is implicit."""
        return 1 + self.flags.count("d")

    def has(self, letters: str) -> bool:
        """Whether one of these options was given."""
        return any(letter in self.flags or letter in self.values for letter in letters)


class Usage(Failed):
    """Wrong words: usage on stderr."""

    def __init__(self) -> None:
        super().__init__(EX_USAGE, "")


def parse_options(argv: list[str]) -> Options:
    """As getopt does: options anywhere before ``--``, values in the same word or the next."""
    options, queue = Options(), list(argv)
    while queue:
        word = queue.pop(0)
        if word == "--":
            options.words += queue
            break
        if not word.startswith("-") or word == "-":
            options.words.append(word)
            continue
        _letters(options, word[1:], queue)
    return options


def _letters(options: Options, letters: str, queue: list[str]) -> None:
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter in WITH_VALUE:
            if not letters and not queue:
                raise Usage
            options.values[letter] = letters or queue.pop(0)
            _judge_value(options, letter)
            return
        if letter == "h":
            raise Failed(EX_OK, "")
        if letter == "g":
            raise Failed(EX_USAGE, "libpcap and filtertest not built with optimizer debugging enabled")
        if letter not in WITHOUT_VALUE:
            raise Usage
        options.flags += letter


def _judge_value(options: Options, letter: str) -> None:
    value = options.values[letter]
    if letter == "m":
        import socket

        try:
            options.netmask = int.from_bytes(socket.inet_pton(socket.AF_INET, value), "big")
        except OSError:
            raise Failed(EX_USAGE, f"invalid netmask {value}") from None
    elif letter == "s":
        snaplen = integer(value)
        if snaplen is None or not 0 <= snaplen <= MAXIMUM_SNAPLEN:
            raise Failed(EX_USAGE, f"invalid snaplen {value}")
        options.snaplen = snaplen
    elif letter == "S" and value not in ("unswapped", "swapped"):
        raise Failed(EX_USAGE, f'invalid -S value "{value}"')


def integer(word: str, base: int = 0) -> int | None:
    """The number in ``word`` as C's strtol reads it; ``base`` 0: by the digits' prefix. None where there is more or less."""
    found = INTEGER.match(word)
    if found is None:
        return None
    sign, digits = found.groups()
    if not base:
        base = 16 if digits[:2] in ("0x", "0X") else 8 if digits.startswith("0") else 10
    try:
        return int(sign + digits, base)
    except ValueError:
        return None


def _check_together(options: Options) -> None:
    """Which options exclude each other."""
    if options.has("r"):
        _exclude("r", options, "dlqSs")
        return
    if not (options.has("i") or options.words):
        raise Usage
    _exclude("d", options, "q" if options.has("d") else "")
    if options.has("i"):
        _exclude("i", options, "FlmOsS")
        if options.words:
            raise Usage


def _exclude(letter: str, options: Options, others: str) -> None:
    for other in others:
        if options.has(other):
            raise Failed(EX_USAGE, f"-{letter} is not compatible with -{other}")


# --- the filter -----------------------------------------------------------------------------------------------------------


def expression(options: Options, words: list[str]) -> str:
    """The text of ``-F``, comments blanked, or the words of the command line."""
    path = options.values.get("F")
    if path is None:
        return " ".join(words)
    if path == "-":
        data = sys.stdin.buffer.read(MAX_STDIN + 1)
        if len(data) > MAX_STDIN:
            raise Failed(EX_IOERR, f"received more than {MAX_STDIN} bytes on stdin")
    else:
        data = _read(path)
    lines = (line.partition(b"#") for line in data.split(b"\0")[0].split(b"\n"))
    return b"\n".join(text + b" " * len(mark + comment) for text, mark, comment in lines).decode("utf-8", "surrogateescape")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError as e:
        raise Failed(EX_IOERR, f"can't open {path}: {e.strerror}") from None


def compiled_filter(options: Options) -> Any:
    """The filter that libpcap makes for a data link type."""
    from netbpf.errors import UsageError
    from netbpf.sources import expr

    name, *words = options.words
    try:
        dlt = expr.linktype_of_name(name)
    except UsageError:
        number = integer(name, 10)
        if number is None:
            raise Failed(EX_USAGE, f"invalid data link type {name}") from None
        dlt = number
    text = expression(options, words)
    if options.has("S"):
        opened = expr.savefile_handle(dlt, options.snaplen, swapped=options.values["S"] == "swapped")
    else:
        opened = expr.dead_handle(dlt, options.snaplen)
    with opened as handle:
        if options.has("l") and not expr.allow_linux_extensions(handle):
            raise Failed(EX_SOFTWARE, "this libpcap keeps its flags for Linux BPF extensions in another place")
        return _compile(handle, text, options)


def _compile(handle: Any, text: str, options: Options) -> Any:
    from netbpf.errors import SourceError
    from netbpf.sources.expr import compile_on

    try:
        return compile_on(handle, text, optimize=not options.has("O"), netmask=options.netmask)
    except SourceError as e:
        raise Failed(EX_DATAERR, e.message) from None


def loaded_filter(path: str) -> Any:
    """A filter in a cbpf-savefile: a header whose last two bytes count the instructions, all in network byte order."""
    from netbpf.isa.classic import SockFilter

    data = sys.stdin.buffer.read() if path == "-" else _read(path)
    if len(data) < CBPF_HEADER_BYTES:
        raise Failed(EX_IOERR, f"failed to read cbpf-savefile header from '{path}'")
    if not data.startswith(CBPF_HEADER_START):
        raise Failed(EX_IOERR, f"invalid cbpf-savefile header in '{path}'")
    count = int.from_bytes(data[18:20], "big")
    rows = [data[at : at + 8] for at in range(CBPF_HEADER_BYTES, CBPF_HEADER_BYTES + 8 * count, 8)]
    if any(len(row) < 8 for row in rows):
        raise Failed(EX_IOERR, f"failed to read the next instruction from '{path}'")
    return tuple(SockFilter(int.from_bytes(r[:2], "big"), r[2], r[3], int.from_bytes(r[4:], "big")) for r in rows)


def validate(insns: Any, code: int) -> None:
    """libpcap's validator."""
    from netbpf.errors import ProgramRejected
    from netbpf.sources.cbpf_check import check_savefile

    try:
        check_savefile(insns)
    except ProgramRejected:
        raise Failed(code, "Filter doesn't pass validation") from None


# --- what becomes of it ---------------------------------------------------------------------------------------------------


def dump(insns: Any, style: int) -> None:
    from netbpf.sources import cbpf

    form = (cbpf.format_d, cbpf.format_dd, cbpf.format_ddd)[min(style, 3) - 1]
    sys.stdout.write(form(insns))


def apply(options: Options) -> None:
    """Print the verdict on each packet of a savefile."""
    from netbpf.errors import CaptureError
    from netbpf.sources.cbpf_check import defused
    from netbpf.sources.expr import file_handle

    path = options.values["r"]
    try:
        with file_handle(path) as handle:
            if options.has("i"):
                insns = defused(loaded_filter(options.values["i"]))  # which need not pass the validator
            else:
                insns = _compile(handle, expression(options, options.words), options)
                validate(insns, EX_SOFTWARE)
    except CaptureError as e:
        raise Failed(EX_NOINPUT, f"Failed opening: {e.message}") from None
    for verdict in verdicts(insns, path):
        sys.stdout.write(f"{verdict}\n")


def verdicts(insns: Any, path: str) -> Iterator[int]:
    """What the filter says of each packet, as a C int."""
    from netbpf.engine.interp.engine import InterpEngine
    from netbpf.env import SystemEnv
    from netbpf.errors import CaptureError
    from netbpf.ints import s32
    from netbpf.packet.open import open_capture
    from netbpf.packet.receive import receive
    from netbpf.program import VerifiedProgram
    from netbpf.sources.cbpf_convert import convert
    from netbpf.sources.expr import damage_of

    program = VerifiedProgram.unproved(convert(insns, savefile=True).insns)
    loaded = InterpEngine().load(program, SystemEnv())
    try:
        with open_capture(path) as reader:
            for record in reader:
                skb = receive(record, view="file")
                assert skb is not None  # a file's packets all come
                yield s32(loaded.run_one(skb))
    except CaptureError as e:
        raise Failed(EX_IOERR, f"pcap_next_ex() failed: {damage_of(path) or e.message}") from None


def run(options: Options) -> None:
    _check_together(options)
    if options.has("r"):
        apply(options)
        return
    if options.has("i"):
        insns = loaded_filter(options.values["i"])
        validate(insns, EX_DATAERR)
    else:
        insns = compiled_filter(options)
        validate(insns, EX_SOFTWARE)
    if not options.has("q"):
        dump(insns, options.dump_style)


def main(argv: list[str]) -> int:
    name = "filtertest"
    try:
        run(parse_options(argv))
        sys.stdout.flush()
        return EX_OK
    except Failed as e:
        sys.stdout.flush()
        if isinstance(e, Usage) or e.code == EX_OK:
            _usage(name, sys.stdout if e.code == EX_OK else sys.stderr)
        else:
            print(f"{name}: {e}", file=sys.stderr)
        return e.code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EX_IOERR
    except (OSError, MemoryError) as e:
        print(f"{name}: {e}", file=sys.stderr)
        return EX_OSERR
    except Exception as e:
        from netbpf.errors import UsageError

        if not isinstance(e, UsageError):
            raise
        print(f"{name}: {e}", file=sys.stderr)  # there is no libpcap
        return EX_OSERR


def _usage(name: str, stream: Any) -> None:
    from netbpf.sources.expr import libpcap_version

    stream.write(f"{name}, with {libpcap_version()}\n{USAGE.format(name=name)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
