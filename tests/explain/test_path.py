"""The recorded path: the engine's own verdict on every shipped packet and on generated programs, and what it says of them."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from support.generated_maps import new_map
from support.objects import NAMES, read
from support.vectors import ROOT
from support.walks import walking
from verifier_btf import LIBRARY
from verifier_programs import MAPS, generate

from netbpf.engine.base import UnsupportedProgram
from netbpf.engine.interp.engine import InterpEngine, InterpLoaded
from netbpf.env import SteppedEnv
from netbpf.errors import CaptureError, ProgramRejected
from netbpf.explain import session as session_module
from netbpf.explain.diff import diff_json, diff_paths, format_diff, parting
from netbpf.explain.path import Listings, record_path
from netbpf.explain.session import WatchedSession
from netbpf.explain.steps import Path as PacketPath
from netbpf.explain.text import format_path, notes
from netbpf.host.sim.host import SimHost
from netbpf.maps.dump import dump
from netbpf.packet.open import open_capture
from netbpf.packet.record import Record
from netbpf.packet.skbuff import SkBuff
from netbpf.program import ProgramSpec, VerifiedProgram
from netbpf.sources.asm import parse
from netbpf.sources.cbpf import to_spec
from netbpf.sources.cbpf_asm import parse as parse_classic
from netbpf.sources.load import read_program

CAPTURES = sorted(p for p in (ROOT / "pcaps").iterdir() if ".pcap" in p.name)
COUNTING = ROOT / "scenarios" / "counting.s"
SESSION = ROOT / "pcaps" / "session.pcap"
HTTPS = """
    ldh [12]
    jne #0x800, drop
    ldb [23]
    jne #6, drop
    ldh [20]
    jset #0x1fff, drop
    ldxb 4*([14]&0xf)
    ldh [x + 16]
    jne #443, drop
    ret #-1
    drop: ret #0
"""


def records(capture: Path, most: int = 20) -> list[Record]:
    found = []
    try:
        with open_capture(str(capture)) as reader:
            for record in reader:
                found.append(record)
                if len(found) == most:
                    break
    except CaptureError:
        pass
    return found


def spec_of(name: str) -> ProgramSpec:
    if name == "https":
        return to_spec(parse_classic(HTTPS), "https")
    return read_program(str(COUNTING if name == "counting" else ROOT / "benchmarks" / "programs" / "flows.s"))


def check_text(path: PacketPath) -> None:
    lines = list(format_path(path))
    assert all(len(line) <= 80 for line in lines), max(lines, key=len)
    json.dumps(path.as_json())


@pytest.mark.parametrize("program", ["counting", "flows", "https"])
@pytest.mark.parametrize("capture", CAPTURES, ids=lambda p: p.name)
def test_a_recorded_run_is_the_run(capture: Path, program: str) -> None:
    with WatchedSession(spec_of(program)) as plain, WatchedSession(spec_of(program)) as watched:
        for record in records(capture):
            path = watched.record(record)
            assert path.verdict == plain.run(record), record.number
            check_text(path)
        assert [dump(m, "json") for m in plain.session.maps.values()] == [dump(m, "json") for m in watched.session.maps.values()]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "core"])
def test_objects_of_all_kinds(name: str) -> None:
    program = "length_class" if name == "globals" else None
    with WatchedSession(read(name, program)) as plain, WatchedSession(read(name, program)) as watched:
        for record in records(SESSION, 12):
            path = watched.record(record)
            assert path.verdict == plain.run(record)
            check_text(path)
            assert any(path.listings[s.program].source(s.pc) for s in path.steps) or name == "legacy_maps"


def test_generated_programs() -> None:
    rng, rng_too, compared = random.Random("paths"), random.Random("paths"), 0
    both = [SimHost(env=SteppedEnv(1)).process() for _ in range(2)]
    tables = []
    for process, numbers in zip(both, (rng, rng_too), strict=True):
        btf_fd = process.btf_load(LIBRARY.bytes)
        tables.append({name: new_map(process, name, record, btf_fd, numbers) for name, record in MAPS.items()})
    for _ in range(80):
        record = generate(rng)
        programs: list[VerifiedProgram] = []
        for process, fds in zip(both, tables, strict=True):
            loaded = load_generated(process, fds, record)
            if loaded is not None:
                programs.append(loaded)
        if len(programs) != 2:
            continue
        try:
            plain, watched = (InterpEngine(insn_limit=20000).load(p, SteppedEnv(1)) for p in programs)
        except UnsupportedProgram:
            continue
        for size in (14, 64, 200):
            compared += agree(plain, watched, rng.randbytes(size))
    assert compared > 30


def load_generated(process: object, fds: dict[str, int], record: dict[str, object]) -> VerifiedProgram | None:
    from netbpf.isa.instruction import decode

    code = list(decode(bytes.fromhex(str(record["insns"]))))
    for index, name, *_ in record["map_relocs"]:  # type: ignore[attr-defined]
        code[index] = code[index]._replace(imm=fds[name])
    if "func_rows" in record or any(insn.code & 7 in (5, 6) and insn.off < 0 for insn in code):
        return None
    try:
        return process.program(process.prog_load(code, log_level=1, prog_flags=record["flags"]))  # type: ignore[attr-defined, no-any-return]
    except ProgramRejected:
        return None


def agree(plain: InterpLoaded, watched: InterpLoaded, data: bytes) -> bool:
    want = plain.run_one(SkBuff(data, len(data), protocol=0x0800))
    path = record_path(watched, SkBuff(data, len(data), protocol=0x0800), Listings({}))
    check_text(path)
    assert path.r0 == want
    return True


# --- what is said -----------------------------------------------------------------------------------------------------------
def why(text: str | ProgramSpec, number: int, capture: Path = SESSION, **options: object) -> PacketPath:
    spec = parse(text) if isinstance(text, str) else text
    with WatchedSession(spec, **options) as session:  # type: ignore[arg-type]
        return next(session.paths(iter(records(capture, 600)), {number}))


def said(path: PacketPath) -> dict[int, list[str]]:
    return {step.pc: notes(step) for step in path.steps}


def test_a_load_is_told_in_protocol_terms_with_what_was_wanted() -> None:
    path = why(spec_of("https"), 4)
    told = [note for step in path.steps for note in notes(step)]
    assert "IPv4.proto at 23 = 17, wanted 6" in told
    assert "Ethernet.type at 12 = 0x0800, wanted 0x0800" in told
    assert path.outcome == "verdict 0: dropped"
    assert any("(002) ldb [23]" in line for line in format_path(path)), "the classic instruction is shown too"


def test_maps_hold_what_the_packets_before_put_there() -> None:
    path = why(spec_of("counting"), 37)
    told = said(path)
    assert told[7] == ["(map=counts, key=6) -> counts[6] = 30"]
    assert told[10] == ["counts[6]: 30 -> 31"]
    change = next(c for s in path.steps for c in s.changes)
    assert (change.raw_key, change.raw_before) == ((6).to_bytes(4, "little"), (30).to_bytes(8, "little"))


@pytest.mark.parametrize("many", [1, 1 << 30], ids=["native", "interpreted"])
@pytest.mark.parametrize("program", ["counting", "flows", "random"])
def test_packets_between_run_in_either_engine(program: str, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "MANY_PACKETS", many)
    spec = parse("call bpf_get_prandom_u32\n r0 &= 0xff\n exit") if program == "random" else spec_of(program)
    with WatchedSession(spec) as one_by_one, WatchedSession(spec) as session, open_capture(str(SESSION)) as reader:
        want = list(one_by_one.paths(iter(records(SESSION, 600)), {20, 21, 300}))
        got = list(session.paths(reader, {300, 21, 20}))
        assert [list(format_path(p)) for p in got] == [list(format_path(p)) for p in want]
        assert [p.number for p in got] == [20, 21, 300]


@pytest.mark.parametrize(
    ("loads", "wanted"),
    [
        ("r0 = *(u8 *)skb[-0x100000 + 9]", "IPv4.proto at net+9 = 6, wanted 6"),
        ("r0 = *(u16 *)skb[-0x200000 + 12]", "Ethernet.type at mac+12 = 0x0800, wanted 0x0006"),
        ("r7 = 10\n r0 = *(u8 *)skb[r7 + 13]", "IPv4.proto at 23 = 6, wanted 6"),
        ("r0 = *(u8 *)skb[14]\n r0 &= 15", "IPv4.ihl = 5, wanted 6"),
        ("r0 = *(u8 *)skb[14]\n r0 >>= 4", "IPv4.version = 4, wanted 6"),
        ("r0 = *(u16 *)skb[20]\n r0 &= 0x1fff", "IPv4.frag = 0, wanted 6"),
        ("r0 = *(u8 *)skb[23]\n *(u64 *)(r10 - 8) = r0\n r0 = 0\n r0 = *(u64 *)(r10 - 8)", "IPv4.proto at 23 = 6, wanted 6"),
        ("r0 = *(u32 *)(r6 + 16)", "skb->protocol = 0x0800, wanted 0x0600"),
        ("r0 = *(u32 *)(r6 + 16)\n r0 = be16 r0", "skb->protocol = 0x0800, wanted 0x0006"),
        ("r0 = *(u32 *)(r6 + 0)", "skb->len = 54, wanted 6"),
    ],
)
def test_the_compared_value_is_followed(loads: str, wanted: str) -> None:
    path = why(f"r6 = r1\n {loads}\n if r0 == 6 goto +0\n r0 = 0\n exit", 37)
    told = [note for step in path.steps for note in notes(step)]
    assert wanted in told, told


def test_bytes_copied_to_the_stack_keep_their_names() -> None:
    path = why(
        """
        r1 = r1
        r2 = 14
        r3 = r10
        r3 += -24
        r4 = 20
        call bpf_skb_load_bytes
        r1 = *(u8 *)(r10 - 15)
        if r1 == 17 goto +0
        r1 = *(u16 *)(r10 - 22)
        r1 = be16 r1
        if r1 > 100 goto +0
        r1 = *(u32 *)(r10 - 12)
        if r1 == 0x0100000a goto +0
        r0 = 0
        exit
        """,
        37,
    )
    told = [note for step in path.steps for note in notes(step)]
    assert "IPv4.proto = 6, wanted 17" in told
    assert "IPv4.len = 40, > 100: no" in told
    assert "IPv4.src = 10.0.0.1, wanted 10.0.0.1" in told


def test_a_load_outside_the_packet_is_told() -> None:
    path = why("r6 = r1\n r0 = *(u16 *)skb[2000]\n exit", 37)
    assert said(path)[1] == ["bytes 2000..2001 at 2000: outside the packet, which ends the function with 0"]
    assert path.verdict == 0
    assert len(path.steps) == 2


def test_dgram_sockets_count_from_the_network_header() -> None:
    path = why("r6 = r1\n r0 = *(u8 *)skb[9]\n if r0 == 6 goto +0\n exit", 37, view="packet_dgram")
    assert said(path)[1] == ["IPv4.proto at 9 = 6, wanted 6"]


def test_a_fault_ends_the_path_and_is_told() -> None:
    from netbpf.sources.asm import parse as assemble

    program = VerifiedProgram.unproved(assemble("r6 = r1\n r1 = 0\n r0 = *(u64 *)(r1 + 8)\n exit").insns)
    path = record_path(InterpEngine().load(program, SteppedEnv(1)), SkBuff(bytes(60), 60), Listings({}))
    assert "NULL pointer plus 8" in path.outcome
    assert [s.pc for s in path.steps] == [0, 1, 2]
    check_text(path)


def test_long_paths_keep_both_ends() -> None:
    text = "r7 = 0\nloop:\n r7 += 1\n if r7 < 5000 goto loop\n r0 = r7\n exit"
    with WatchedSession(parse(text)) as session:
        path = session.record(records(SESSION)[0], max_steps=100)
    assert (len(path.steps), path.total, path.steps[0].pc, path.steps[-1].pc) == (100, 10003, 0, 4)
    assert any("steps left out" in line for line in format_path(path))


def test_callbacks_and_functions_are_indented_and_helpers_told_when_they_are_done() -> None:
    path = why(read("callback"), 37)
    inner = [s for s in path.steps if s.depth == 1]
    assert len(inner) == 24
    call = next(s.call for s in path.steps if s.call and s.call.name == "for_each_map_elem")
    assert dict(call.args) == {"map": "numbers", "callback": "&add", "ctx": "fp-16", "flags": "0"}
    assert call.result == "4"


def test_a_function_that_a_table_is_walked_by_reads_a_key_of_it() -> None:
    told = said(why(walking("hash key=4 value=8 entries=4 {\n    7: 1\n}"), 1))
    assert "a key of map 'm' = 7" in told[9]
    assert "m[7] = 1" in told[12]


def test_tail_calls_go_on_in_the_other_program() -> None:
    path = why(read("flow_tail_calls"), 37)
    names = [listing.name for listing in path.listings]
    assert len(names) > 1
    goes = [s.call.result for s in path.steps if s.call and s.call.kind == "tail_call"]
    assert goes == [f"goes on in {name}" for name in names[1:]]


# --- two packets -----------------------------------------------------------------------------------------------------------
def both(spec: ProgramSpec, a: int, b: int) -> tuple[PacketPath, PacketPath]:
    with WatchedSession(spec) as session:
        left, right = session.paths(iter(records(SESSION, 600)), {a, b})
    return left, right


def test_where_two_packets_part() -> None:
    left, right = both(spec_of("https"), 4, 37)
    rows = diff_paths(left, right)
    at = parting(rows)
    assert at is not None
    last = rows[at].left
    assert last is not None
    assert last.branch is not None
    assert last.branch.of == "IPv4.proto"
    text = "\n".join(format_diff(left, right))
    assert "the paths part at insn" in text
    assert "packet 4: IPv4.proto at 23 = 17, wanted 6" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert diff_json(left, right)["parted_at"]["step"] == last.index


def test_the_same_path_with_other_values() -> None:
    left, right = both(spec_of("counting"), 4, 37)
    assert parting(diff_paths(left, right)) is None
    assert "both take the same path with other values" in "\n".join(format_diff(left, right))


def test_every_step_stands_in_one_row() -> None:
    left, right = both(read("flow_hash"), 1, 37)
    rows = diff_paths(left, right)
    assert [r.left.index for r in rows if r.left] == [s.index for s in left.steps]
    assert [r.right.index for r in rows if r.right] == [s.index for s in right.steps]
