"""What a debugger shows of the place it is at: the program, registers, the stack, the packet with its fields, maps. Lines of text
that fit a width; pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

from netbpf.abi.maps import MAP_KINDS
from netbpf.engine.interp.machine import CLOBBERED
from netbpf.engine.interp.memory import FRAME_NUMBERS, NUMBER_SHIFT, OFFSET_MASK
from netbpf.explain.debugger import Debugger
from netbpf.explain.fields import fields_between
from netbpf.explain.places import map_name, plain, shown
from netbpf.explain.steps import Step
from netbpf.explain.text import WIDTH, headline, notes
from netbpf.isa.opcodes import MAX_BPF_STACK
from netbpf.maps.storage import MapBase

HERE: Final = ">"
BREAK: Final = "*"
BYTES_A_LINE: Final = 8
PANES: Final = ("packet", "stack", "maps", "notes")


def title(debugger: Debugger) -> str:
    """Packet, step and program in a line."""
    path = debugger.path
    where = f"step {debugger.at}/{path.total}" if debugger.step_here is not None else f"end after {path.total} steps"
    return f"packet {path.number}  {where}  {debugger.listing.name}"


def here(debugger: Debugger) -> list[str]:
    """The instruction that comes next, its source line above it; at the end the verdict."""
    step = debugger.step_here
    if step is None:
        return [debugger.path.outcome]
    listing = debugger.path.listings[step.program]
    source = listing.source(step.pc)
    above = [f"; {source.text}" + (f"  {source.place}" if source.place else "")] if source is not None else []
    return [*above, f"{step.pc:4d}: {listing.text(step.pc)}"]


def program_lines(debugger: Debugger, height: int) -> list[str]:
    """``height`` lines of the program around the current instruction, ``>`` before it, ``*`` before those with a breakpoint."""
    listing, step = debugger.listing, debugger.step_here
    pc = step.pc if step is not None else (debugger.path.steps[-1].pc if debugger.path.steps else 0)
    stops = {b.pc for b in debugger.breakpoints if b.kind == "insn" and b.program in ("", listing.name)}
    rows, focus, above = [], 0, ""
    for slot in listing.starts:
        source = listing.source(slot)
        line = source.text if source is not None else ""
        if line and line != above:
            rows.append(f"  ; {line}")
        above = line
        if slot == pc:
            focus = len(rows)
        mark = HERE if slot == pc and step is not None else " "
        rows.append(f"{BREAK if slot in stops else ' '}{mark}{slot:4d}: {listing.text(slot)}")
    first = max(0, min(focus - height // 2, len(rows) - height))
    return rows[first : first + height]


def register_lines(debugger: Debugger) -> list[str]:
    """R0 to R10: places by their names, numbers in decimal and hex; ``*`` before those that the last step changed."""
    step = debugger.step_here
    if step is None:
        return [f" r0  {_number(debugger.path.r0)}" if debugger.path.r0 >= 0 else " (fault)"]
    before = debugger.path.steps[debugger.at - 1].regs if debugger.at else step.regs
    return [
        f"{'*' if value != before[i] else ' '}r{i:<2} {_register(debugger, step, value)}" for i, value in enumerate(step.regs)
    ]


def _register(debugger: Debugger, step: Step, value: int) -> str:
    if value == CLOBBERED[0]:
        return "(unset)"
    frame = value >> NUMBER_SHIFT
    if frame in FRAME_NUMBERS:
        depth, offset = FRAME_NUMBERS.index(frame), (value & OFFSET_MASK) - MAX_BPF_STACK
        return (f"fp{offset:+d}" if offset else "fp") + ("" if depth == step.depth else f" of frame {depth}")
    place = debugger.places.place(value) if frame else ""
    return place or _number(value)


def _number(value: int) -> str:
    return str(value) if value < 10 else f"{value} {value:#x}" if value < 1 << 32 else f"{value:#x}"


def stack_lines(debugger: Debugger) -> list[str]:
    """Eight bytes a line of the current frame, the words that hold anything."""
    step = debugger.step_here or (debugger.path.steps[-1] if debugger.path.steps else None)
    if step is None or not any(step.stack):
        return ["the frame is empty"]
    found = []
    for at in range(MAX_BPF_STACK - 8, -1, -8):
        word = step.stack[at : at + 8]
        if any(word):
            found.append(f"fp{at - MAX_BPF_STACK:<+5} {word.hex(' ')}  {int.from_bytes(word, 'little'):#x}")
    return found


def packet_lines(debugger: Debugger, width: int = WIDTH) -> list[str]:
    """Eight bytes a line with the fields that begin there; a ``|`` before the bytes that the last step loaded."""
    path = debugger.path
    if path.skb is None:
        return [path.outcome]
    load = path.steps[debugger.at - 1].load if debugger.at else None
    loaded = range(load.off, load.off + load.size) if load is not None and load.off >= 0 else range(0)
    head, found = path.skb.head, []
    for at in range(0, len(head), BYTES_A_LINE):
        text = "".join(("|" if at + i in loaded else " ") + f"{byte:02x}" for i, byte in enumerate(head[at : at + BYTES_A_LINE]))
        begin = (f for f in fields_between(path.dissection, at, at + BYTES_A_LINE) if f.off >= at)
        told = " ".join(f"{f.label}={path.dissection.value(f)}" if f.name else f.layer for f in begin)
        left = f"{at - path.skb.data_off:4d} {text:<{3 * BYTES_A_LINE}}  "
        for line in textwrap.wrap(told, width - len(left), break_on_hyphens=False) or [""]:
            found.append(f"{left}{line}".rstrip())
            left = " " * len(left)
    return found


def map_lines(debugger: Debugger, name: str = "") -> list[str]:
    """Every map, or the one called ``name``, as it was at this moment."""
    found: list[str] = []
    for label, live in debugger.maps().items():
        if name in ("", label):
            found += [f"{label}: {MAP_KINDS[live.map_type].name} of {live.spec.max_entries}", *_entries(debugger, live)]
    return found or [f"no map is called {name!r}" if name else "the program has no maps"]


def _entries(debugger: Debugger, live: MapBase) -> Iterator[str]:
    formatters = debugger.session.typed.get(map_name(live))
    key_of, value_of = formatters or (plain, plain)
    rows = debugger.contents(live)
    if not live.spec.key_size:
        yield "  (a kind without keys: see the notes of the steps that write to it)"
    zeros = 0
    for key, value in rows.items():
        if live.map_type == 2 and not any(value):  # an array's empty entries are many
            zeros += 1
            continue
        yield f"  {plain(key) if len(key) in (1, 2, 4, 8) else shown(key_of(key))}: {shown(value_of(value))}"
    if zeros:
        yield f"  ({zeros} entries of zeros)"


def note_lines(debugger: Debugger) -> list[str]:
    """What the packet is, and what the last step did."""
    last = debugger.path.steps[debugger.at - 1] if debugger.at else None
    return [headline(debugger.path), *(_done(debugger, last) if last is not None else ["nothing has run yet"])]


def _done(debugger: Debugger, step: Step) -> list[str]:
    text = debugger.path.listings[step.program].text(step.pc)
    return [f"done: {step.pc}: {text}", *(f"  {note}" for note in notes(step))]


def pane_lines(debugger: Debugger, pane: str) -> list[str]:
    """The lines of one of PANES."""
    views = {"packet": packet_lines, "stack": stack_lines, "maps": map_lines, "notes": note_lines}
    return views[pane](debugger)
