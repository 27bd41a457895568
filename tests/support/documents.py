"""The commands that the documents show: found in code blocks, with the output that is shown below them.

In a block, a line that begins with ``$ `` is a command, lines with ``> `` go on with it, and those up to the next command are its
output, where ``...`` stands for any lines, or at a line's end for any rest of it. In a block without such lines, lines that begin
with a program of PROGRAMS are commands. A command's comment may say ``exit N`` (0 is meant where nothing is said) or ``as root``.
A block behind a line that ends in a file's name, `` `dns.s`: ``, is that file, which the reader writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

PROGRAMS = re.compile(r"(netbpf(?= [a-z])|pytest|python|scripts/\S+|docs/examples/\S+|git|pip) ")
FILE = re.compile(r".*`([\w./-]+)`:$")
FENCE = re.compile(r"\s*```(\w*)\s*$")
EXIT = re.compile(r"#.*\bexit (\d+)")
ROOT_WORDS = "# as root"
INDENT = "    "


@dataclass
class Command:
    """``line`` is its number in the document; ``output`` None where the document shows none."""

    text: str
    line: int
    output: list[str] | None = None

    @property
    def exit_code(self) -> int:
        found = EXIT.search(self.text)
        return int(found[1]) if found else 0

    @property
    def needs_root(self) -> bool:
        return ROOT_WORDS in self.text


@dataclass
class Block:
    """A code block: the number of its first line, its lines without indent, and the line of text before it."""

    line: int
    language: str = ""
    before: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def file(self) -> str:
        """The name of the file that the block shows, "" where it shows none: the line before ends in its name."""
        found = FILE.match(self.before)
        return found[1] if found else ""

    @property
    def text(self) -> str:
        return "\n".join(self.lines).rstrip() + "\n"


def blocks(text: str) -> Iterator[Block]:
    """Fenced blocks, and indented ones that follow an empty line and are in no list."""
    fenced: Block | None = None
    indented: Block | None = None
    before = words = ""
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if fenced is not None:
            if fence:
                yield fenced
                fenced = None
            else:
                fenced.lines.append(line)
        elif fence:
            fenced = Block(number + 1, fence[1], words)
        elif line.startswith(INDENT) and (indented is not None or not before.strip()):
            indented = indented or Block(number, before=words)
            indented.lines.append(line[len(INDENT) :])
        elif indented is not None and line.strip():
            yield indented
            indented = None
        elif indented is not None:
            indented.lines.append("")
        before, words = line, line if line.strip() else words
    if indented is not None:
        yield indented


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block, in order."""
    if any(line.startswith("$ ") for line in block.lines):
        yield from _with_output(block)
        return
    for number, line in _joined(block):
        if PROGRAMS.match(line):
            yield Command(line, number)


def _joined(block: Block) -> Iterator[tuple[int, str]]:
    """Lines, those that end in a backslash with the next."""
    begun, number = "", 0
    for i, line in enumerate(block.lines):
        number = number or block.line + i
        if line.endswith("\\"):
            begun += line[:-1]
            continue
        yield number, begun + line
        begun, number = "", 0


def _with_output(block: Block) -> Iterator[Command]:
    command: Command | None = None
    for number, line in _joined(block):
        if line.startswith("$ "):
            if command:
                yield command
            command = Command(line[2:], number, [])
        elif command and not command.output and line.startswith("> "):
            command.text += "\n" + line[2:]
        elif command and command.output is not None:
            command.output.append(line)
    if command:
        yield command


def is_shown(expected: list[str], output: str) -> bool:
    """Whether a command's output is what the document shows."""
    pattern = []
    for line in _trimmed(expected):
        if line.strip() == "...":
            pattern.append(r"(?:.*\n)*?")
        elif line.endswith("..."):
            pattern.append(re.escape(line[:-3]) + r".*\n")
        else:
            pattern.append(re.escape(line.rstrip()) + r" *\n")
    got = "\n".join(line.rstrip() for line in output.splitlines()).strip("\n")
    return re.fullmatch("".join(pattern), got + "\n" if got else "") is not None


def _trimmed(lines: list[str]) -> list[str]:
    """Without empty lines at the end."""
    end = len(lines)
    while end and not lines[end - 1].strip():
        end -= 1
    return lines[:end]
