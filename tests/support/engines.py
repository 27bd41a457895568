"""The same program on both engines: R0 or fault, maps, trace lines and cb of each run, to be compared."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from netbpf.engine.base import Loaded
from netbpf.engine.interp.engine import InterpEngine
from netbpf.engine.llvm.engine import NativeEngine
from netbpf.env import SteppedEnv
from netbpf.errors import EngineFault, NetbpfError
from netbpf.packet.skbuff import SkBuff
from netbpf.program import VerifiedProgram
from netbpf.verifier.check import verify
from support.vectors import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

NATIVE = NativeEngine(use_cache=False)
CHECKED = NativeEngine(use_cache=False, checked=True)
INTERP = InterpEngine()


class Outcome(NamedTuple):
    """What one run did: R0 or where it faulted, the bytes of the maps, trace lines, cb, the clock and random state after it."""

    r0: int | str
    maps: tuple[bytes, ...]
    trace: tuple[str, ...]
    cb: bytes
    env: tuple[int, int]


def run_loaded(load: Callable[[VerifiedProgram, SteppedEnv], Any], program: VerifiedProgram, skbs: list[SkBuff]) -> list[Outcome]:
    """Each packet in turn through one loaded program."""
    env = SteppedEnv(now_ns=1_000_000_007, seed=7)
    loaded = load(program, env)
    return [one_run(loaded, env, replace(skb, cb=bytearray(skb.cb))) for skb in skbs]


def one_run(loaded: Any, env: SteppedEnv, skb: SkBuff) -> Outcome:
    try:
        r0: int | str = loaded.run_one(skb)
    except EngineFault as fault:
        r0 = f"fault at {fault.pc}"
    program: VerifiedProgram = loaded.program
    lines = tuple(str(line) for line in loaded.trace.drain())
    return Outcome(r0, tuple(map_bytes(m) for m in program.maps), lines, bytes(skb.cb), (env.now_ns, env.rng_state))


def map_bytes(live: Any) -> bytes:
    """A map's whole memory; of maps that hold objects, addresses differ by nature and are left out."""
    return bytes(live.memory) if not hasattr(live, "inner_at") else b""


def load_or_refusal(engine: Any, program: VerifiedProgram, env: SteppedEnv) -> Loaded | str:
    try:
        loaded: Loaded = engine.load(program, env)
        return loaded
    except NetbpfError as refusal:
        return type(refusal).__name__


def proved_program(record: dict[str, Any]) -> VerifiedProgram | None:
    """The program of a vector record as our verifier proves it, with maps of its own; None where BTF would be needed."""
    from verifier_records import load_request

    from support.running import fill_prog_array, record_map

    request = load_request(record, record["prog_type"], "priv", 0)
    lives = [record_map(name, m) for name, m in (record.get("maps") or {}).items()]
    infos = [info for info in request.fd_maps.values() if info is not None]
    for info, live in zip(infos, lives, strict=True):
        info.map = live
    program = verify(request).program
    if program is not None:
        for m, live in zip((record.get("maps") or {}).values(), lives, strict=True):
            if m.get("prog_slots"):
                fill_prog_array(live, m["prog_slots"], program)
    return program
