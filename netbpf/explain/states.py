"""What the verifier knew at each instruction, out of its level-2 log: a few different states a slot, in the log's own words."""

from __future__ import annotations

import re
from typing import Final

from netbpf.errors import NetbpfError
from netbpf.host.loader import load_spec
from netbpf.host.sim.host import SimHost
from netbpf.program import ProgramSpec

MAX_STATES: Final = 4  # different ones that are kept of a slot
MAX_LOG_LINES: Final = 400_000
MAX_WALKED: Final = 100_000  # instructions that a proof walked; longer walks have logs of many megabytes
_AFTER: Final = re.compile(r"(\d+): \([0-9a-f]{2}\) .*?;\s*((?:frame\d+: )?(?:R\d|fp-).*)")
_BEFORE: Final = re.compile(r"(?:from \d+ to )?(\d+):\s+((?:frame\d+: )?(?:R\d|fp-).*)")

States = dict[int, tuple[str, ...]]
"""By slot: ``before: R0=...`` where a path began or was taken up there, and what the instruction left (``R0=scalar()``)."""


def parse_states(log: str) -> States:
    """The states of a log of one program."""
    found: dict[int, list[str]] = {}
    for line in log.split("\n", MAX_LOG_LINES)[:MAX_LOG_LINES]:
        match, word = _AFTER.match(line), ""
        if match is None:
            match, word = _BEFORE.match(line), "before: "
        if match is not None:
            texts = found.setdefault(int(match[1]), [])
            text = word + match[2].strip()
            if text not in texts and len(texts) < MAX_STATES:
                texts.append(text)
    return {pc: tuple(texts) for pc, texts in sorted(found.items())}


def verifier_states(spec: ProgramSpec) -> dict[str, States]:
    """By name of the program, for ``spec`` and the programs that its maps hold; nothing for one that is refused, or whose proof
    is too long to keep its log."""
    if spec.classic:
        from netbpf.verifier.classic import verify_classic

        return {spec.name: parse_states(verify_classic(spec, log_level=2).log)}
    try:
        with SimHost().process() as process:
            first = load_spec(process, spec)
            walked = [process.prog_info(fd).verified_insns for fd in (first.prog_fd, *first.other_fds.values())]
            if sum(walked) > MAX_WALKED:
                return {}
            loaded = load_spec(process, spec, log_level=2)
            fds = {spec.name: loaded.prog_fd, **loaded.other_fds}
            return {name: parse_states(process.load_log(fd)) for name, fd in fds.items()}
    except NetbpfError:
        return {}
