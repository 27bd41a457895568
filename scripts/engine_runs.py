"""The same program on both engines: R0 or fault, maps, trace lines, cb and clock after each run, to be compared.

What scripts/engine_fuzz.py and the engines' tests share.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from verifier_records import load_request, map_info

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support.function_btf import MAIN_FUNCTION, STATIC_FUNCTION, btf_with_int_functions

from netbpf.abi.maps import MapType
from netbpf.engine.interp.engine import InterpEngine
from netbpf.engine.llvm.engine import NativeEngine
from netbpf.env import SteppedEnv
from netbpf.errors import BpfError, EngineFault, ProgramRejected
from netbpf.host.loader import load_spec
from netbpf.host.sim.host import SimHost
from netbpf.isa.cfg import subprog_starts
from netbpf.maps.create import create
from netbpf.maps.inner import is_meta_equal
from netbpf.maps.perf_buffer import PerfBuffer
from netbpf.packet.skbuff import SkBuff
from netbpf.program import ProgramSpec, VerifiedProgram
from netbpf.sources.asm import parse
from netbpf.verifier.check import verify

NATIVE = NativeEngine(use_cache=False)
CHECKED = NativeEngine(use_cache=False, checked=True)
INTERP = InterpEngine()
Load = Callable[[VerifiedProgram, SteppedEnv], Any]


class Outcome(NamedTuple):
    """What one run did."""

    r0: int | str
    maps: tuple[bytes, ...]
    trace: tuple[str, ...]
    cb: bytes
    env: tuple[int, int]


def new_env() -> SteppedEnv:
    return SteppedEnv(now_ns=1_000_000_007, seed=7)


def run_loaded(load: Load, program: VerifiedProgram, skbs: list[SkBuff]) -> list[Outcome]:
    """Each packet in turn through one loaded program; a fault is the last. Between packets user space changes what is inside
    maps of maps and program arrays, the same way each time."""
    env, user, maps = new_env(), random.Random(1), reached_maps(program)
    loaded = load(program, env)
    out: list[Outcome] = []
    arrays = [(m, m.objects()) for m in maps if m.map_type == MapType.PROG_ARRAY]
    for skb in skbs:
        for outer in (m for m in maps if m.spec.inner is not None):
            change_inner(user, outer)
        for array, programs in arrays:
            change_programs(user, array, programs)
        out.append(one_run(loaded, env, replace(skb, cb=bytearray(skb.cb)), maps))
        if isinstance(out[-1].r0, str):
            break
    return out


def change_inner(user: random.Random, outer: Any) -> None:
    """At times: take a map out of another, or put in a new one, of another size where the template lets it."""
    key, what = user.randrange(min(outer.spec.max_entries, 4)).to_bytes(outer.spec.key_size, "little"), user.random()
    template = outer.spec.inner
    larger = template._replace(max_entries=template.max_entries + user.choice((0, 1, 30)))
    try:
        if what < 0.1:
            outer.take_out(key)
        elif what < 0.3:
            outer.put(key, create(larger if is_meta_equal(template, larger) else template, n_cpus=outer.n_cpus))
    except BpfError:
        pass  # no such entry, or no room: as it may be


def change_programs(user: random.Random, array: Any, programs: list[Any]) -> None:
    """At times: take a program out of an array, or put one of those there that were in it at first."""
    key, what = user.randrange(array.spec.max_entries).to_bytes(4, "little"), user.random()
    if what < 0.1 and array.get(int.from_bytes(key, "little")) is not None:
        array.take_out(key)
    elif what < 0.4 and programs:
        array.put(key, user.choice(programs))


def reached_maps(program: VerifiedProgram) -> list[Any]:
    """The maps of a program and of those in its program arrays, and so on."""
    seen, work, maps = {id(program)}, [program], dict[int, Any]()
    for each in work:
        for live in each.maps:
            maps.setdefault(id(live), live)
            held: list[Any] = live.objects() if live.map_type == MapType.PROG_ARRAY else []  # type: ignore[attr-defined]
            work += [other for other in held if id(other) not in seen]
            seen.update(map(id, held))
    return list(maps.values())


def one_run(loaded: Any, env: SteppedEnv, skb: SkBuff, live: list[Any]) -> Outcome:
    """One packet, and what is then in the maps ``live``."""
    try:
        r0: int | str = loaded.run_one(skb)
    except EngineFault as fault:
        r0 = "limit" if "limit for this run" in fault.message else f"fault at {fault.pc}"
    lines = tuple(str(line) for line in loaded.trace.drain())
    maps = tuple(map_bytes(m) for m in live)
    return Outcome(r0, maps, lines, bytes(skb.cb), (env.now_ns, env.rng_state))


def map_bytes(live: Any) -> bytes:
    """A map's whole memory; of maps of maps that of the maps inside, for their own slots hold addresses."""
    if live.map_type == MapType.PERF_EVENT_ARRAY:
        return b"".join(bytes(ring.memory) for ring in live.objects())
    if not hasattr(live, "inner_at"):
        return bytes(live.memory)
    return b"".join(bytes(inner.memory) for inner in live.objects())


def proved_program(record: dict[str, Any], privilege: str = "priv") -> VerifiedProgram | None:
    """The program of a record as our verifier proves it, with maps of its own; None when it is refused or needs more. A record
    may be assembly ("text"), which is loaded with every privilege, or a group of programs (``engine_chains``)."""
    if "text" in record:
        return loaded_text(record["text"])
    if "group" in record:
        return proved_group(record, privilege)
    return _proved(record, privilege, {})


def proved_group(record: dict[str, Any], privilege: str) -> VerifiedProgram | None:
    """The program of a group that runs begin with, the others in the program array; None where none is accepted."""
    maps: dict[str, Any] = {}
    proved = [p for each in record["group"] if (p := _proved(each, privilege, maps)) is not None]
    loaded = [p._replace(prog_id=n) for n, p in enumerate(proved, 1)]
    first = next((p for p in loaded if maps.get("progs") in p.maps), None)
    for index, which in enumerate(record["slots"]):
        if first is not None and 0 <= which < len(loaded):
            maps["progs"].put(index.to_bytes(4, "little"), loaded[which])
    return first


def _proved(record: dict[str, Any], privilege: str, maps: dict[str, Any]) -> VerifiedProgram | None:
    """``maps``: those that are there already, by name; the record's are added."""
    request = load_request(record, record["prog_type"], privilege, 0)
    named = record.get("maps") or {}
    try:
        maps |= {name: live_map(name, m) for name, m in named.items() if name not in maps}
    except BpfError:  # a kind that cannot be created here
        return None
    infos = [info for info in request.fd_maps.values() if info is not None]
    for info, name in zip(infos, named, strict=True):
        info.map = maps[name]
    return verify(request).program


def loaded_text(text: str) -> VerifiedProgram | None:
    """Assembly as a simulated host loads it; None when it is refused. Perf event arrays get a ring in their first place."""
    process = SimHost(env=SteppedEnv()).process()
    try:
        program = process.program(load_spec(process, with_functions(parse(text))).prog_fd)
    except (ProgramRejected, BpfError):
        return None
    for live in program.maps:
        if live.map_type == MapType.PERF_EVENT_ARRAY:
            ring: Any = live
            ring.put(bytes(4), PerfBuffer(0, 1, 9))
    return program


def with_functions(spec: ProgramSpec) -> ProgramSpec:
    """Programs with functions, and the BTF that Linux wants for those that are passed on or make tail calls: all return int."""
    if spec.btf:
        return spec
    starts = subprog_starts(spec.insns)
    info = tuple((start, STATIC_FUNCTION if start else MAIN_FUNCTION) for start in starts) if len(starts) > 1 else ()
    others = tuple(with_functions(other) for other in spec.others)
    btf = btf_with_int_functions() if info or any(other.btf for other in others) else b""
    return spec._replace(btf=btf, func_info=info, others=others)


def live_map(name: str, m: dict[str, Any]) -> Any:
    """A live map with its recorded contents; in a map of maps, a map of its template in the first place."""
    spec = map_info(name, m, 0).spec
    live: Any = create(spec)
    for key, value in (m.get("contents") or {}).items():
        whole = bytes.fromhex(value).ljust(spec.value_size, b"\0")
        live.update(bytes.fromhex(key)[: spec.key_size].ljust(spec.key_size, b"\0"), whole)
    if spec.inner is not None:
        live.put(bytes(spec.key_size), create(spec.inner))
    return live
