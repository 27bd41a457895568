"""Programs that reach each other by tail calls, for scripts/engine_fuzz.py: a text with several programs, or a group of records.

A group is a record with ``group``, the records of its programs, and ``slots``: which of them each slot of the program array holds
at first, by index among those that the verifier takes, -1 where none. Runs begin with the first of these that makes tail calls.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from engine_programs import Writer, put_begin, put_operation
from verifier_programs import generate

PROGS = "progs"
SLOTS = 4
MOST = 4
GENERATED = 16
CB_AT = 48


def random_chain(rng: random.Random) -> dict[str, Any]:
    """A text: programs on the same maps, each with some operations, tail calls among them."""
    w, names = Writer(rng), [f"p{n}" for n in range(rng.randrange(1, MOST))]
    w.declare()
    for name in ("", *names):
        if name:
            w.put(f".program {name}")
        put_begin(w)
        w.put(f"r9 = *(u32 *)(r6 + {CB_AT})")
        for _ in range(rng.randrange(1, 5)):
            (_put_tail_call if rng.random() < 0.45 else put_operation)(w)
        w.end()
    slots = "".join(f"    {n}: &{rng.choice(names)}\n" for n in range(SLOTS) if rng.random() < 0.8)
    return {"text": f".map {PROGS} prog_array key=4 value=4 entries={SLOTS} {{\n{slots}}}\n{w.text()}"}


def _put_tail_call(w: Writer) -> None:
    """To an index that is known or comes from the packet, at times out of range; what was found so far goes along in cb."""
    index = w.rng.choice(("0", "1", "2", "3", "3", "4", "-1", "r8", "r8", "r9"))
    w.put(f"*(u32 *)(r6 + {CB_AT}) = r9\nr1 = r6\nr2 = map[{PROGS}]\nr3 = {index}")
    if index.startswith("r"):
        w.put(f"r3 &= {w.rng.choice((1, 3, 3, 7))}")
    w.put("call bpf_tail_call\nr9 += 7")


def random_group(rng: random.Random) -> dict[str, Any]:
    """A group of any programs, most of which make tail calls; the verifier refuses most."""
    some = _generated(rng, lambda record: rng.random() < 0.05 or PROGS in record["maps"])
    return {"group": [next(some) for _ in range(GENERATED)], "slots": [rng.randrange(-1, MOST) for _ in range(SLOTS)]}


def _generated(rng: random.Random, is_wanted: Callable[[dict[str, Any]], bool]) -> Iterator[dict[str, Any]]:
    while True:
        record = generate(rng)
        if is_wanted(record):
            yield record
