"""Two runs of the same frames beside each other: the first difference is found, named and shown, whatever differs."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.packet_grid import MAC, PEER, own_frames

from netbpf.errors import UsageError
from netbpf.packet.record import Record
from netbpf.replay.compare import HostRun, LabOptions, compare, run_on
from netbpf.replay.frames import as_frame, decoded, hex_dump
from netbpf.sources.cbpf import to_spec
from netbpf.sources.load import parse_program, read_program

COUNTING = read_program(str(Path(__file__).parents[2] / "scenarios" / "counting.s"))
KEEP_60 = parse_program(b"r0 = 60\nexit\n", "keep.s")
FRAMES = [f for f in own_frames().values() if len(f) >= 14]


def keeping(count: int = 40) -> HostRun:
    return run_on("sim", KEEP_60, FRAMES[:count], options=LabOptions(wait_s=0))


def test_a_run_tells_what_became_of_every_frame() -> None:
    run = run_on("sim", COUNTING, FRAMES, options=LabOptions(wait_s=0))
    assert run.backend == "sim"
    assert not run.errno
    assert len(run.packets) == len(run.frames) == len(FRAMES)
    assert (run.accepted, run.dropped + run.unseen) == (0, len(FRAMES))
    assert {k[0] for k, _ in run.maps["counts"]} == {6, 17}
    assert compare(run, replace(run, backend="kernel")) is None


def test_a_refused_program_is_told_and_not_raised() -> None:
    bad = parse_program(b"r0 = r5\nexit\n", "bad.s")
    run = run_on("sim", bad, FRAMES)
    assert (run.errno, run.step, run.packets) == (13, "load", ())
    assert "R5 !read_ok" in run.log
    other = replace(keeping(1), backend="kernel")
    told = str(compare(run, other))
    assert "load refused: EACCES: R5 !read_ok" in told
    assert "loaded and attached" in told


def test_a_classic_filter_is_attached_as_one() -> None:
    spec = parse_program(b"2\n40 0 0 12\n6 0 0 20\n", "f.ddd")
    assert spec.classic
    run = run_on("sim", spec, FRAMES[:4], options=LabOptions(wait_s=0))
    assert [p.kept for p in run.packets] == [20] * 4
    assert spec == to_spec(spec.classic, "f")


def test_a_program_of_another_type_is_refused_at_attach() -> None:
    spec = KEEP_60._replace(prog_type=3)
    run = run_on("sim", spec, FRAMES[:1])
    assert (run.errno, run.step) == (22, "attach")


def test_the_first_packet_that_differs_is_named_with_its_frame() -> None:
    a = keeping()
    at = next(i for i, p in enumerate(a.packets) if i > 5 and p.received)
    packets = list(a.packets)
    packets[at] = packets[at]._replace(received=())
    packets[at + 1] = packets[at + 1]._replace(received=())
    found = compare(a, replace(a, backend="kernel", packets=tuple(packets)))
    assert found is not None
    assert (found.kind, found.number, found.frame) == ("packet", at + 1, a.frames[at])
    told = str(found)
    assert f"packet {at + 1}: the verdict" in told
    assert "sim     kept" in told
    assert "kernel  dropped" in told
    assert a.frames[at][:16].hex(" ") in told
    assert "Ether" in told  # scapy's words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r._replace(data=b"\xff" + r.data[1:]), "the bytes"),
        (lambda r: r._replace(length=r.length + 4), "the length by MSG_TRUNC"),
        (lambda r: r._replace(auxdata=r.auxdata[:16] + b"\x05\0" + r.auxdata[18:]), "PACKET_AUXDATA"),
        (lambda r: r._replace(address=(*r.address[:2], 4, *r.address[3:])), "the address"),
    ],
)
def test_whatever_differs_of_a_packet_is_named(change: object, words: str) -> None:
    a = keeping()
    at = next(i for i, p in enumerate(a.packets) if p.received)
    received = change(a.packets[at].received[0])  # type: ignore[operator]
    packets = [*a.packets[:at], a.packets[at]._replace(received=(received,)), *a.packets[at + 1 :]]
    assert words in str(compare(a, replace(a, packets=tuple(packets))))
    assert "any socket" in str(compare(a, replace(a, packets=(a.packets[0]._replace(seen=7), *a.packets[1:]))))


def test_map_entries_and_log_lines() -> None:
    a = run_on("sim", COUNTING, FRAMES, options=LabOptions(wait_s=0), log_level=1)
    rows = a.maps["counts"]
    told = str(compare(a, replace(a, maps={"counts": (*rows[:1], (rows[1][0], struct.pack("<Q", 7)))})))
    assert "map counts, key 11 00 00 00" in told
    assert "(7)" in told
    assert "no entry" in str(compare(a, replace(a, maps={"counts": rows[:1]})))
    assert "line 2 of the verifier's log" in str(compare(replace(a, log="one\ntwo\n"), replace(a, log="one\n")))
    assert compare(replace(a, log="verification time 7 usec\nx"), replace(a, log="verification time 9 usec\nx")) is None
    assert compare(replace(a, log="5: (18) r1 = 0x0  ; R1"), replace(a, log="5: (18) r1 = 0xffff8881e3824400 ; R1")) is None
    assert compare(replace(a, log="5: (18) r1 = 0x0"), replace(a, log="5: (18) r1 = 0x1")) is not None


def test_lo_sees_each_frame_twice() -> None:
    run = run_on("sim", KEEP_60, FRAMES[:1], options=LabOptions(kind="lo", wait_s=0))
    assert run.packets[0].seen == len(run.packets[0].received) == 2


def test_an_unknown_host() -> None:
    with pytest.raises(UsageError, match="a backend is one of"):
        run_on("bsd", KEEP_60, FRAMES)


# --- frames of records ------------------------------------------------------------------------------------------------


def test_cut_records_are_padded_to_the_length_on_the_wire() -> None:
    record = Record(1, 0, 100, MAC + PEER + b"\x08\0" + bytes(30))
    made = as_frame(record)
    assert made is not None
    assert (len(made.frame), made.padded, made.frame[:44]) == (100, True, record.data)
    whole = as_frame(record._replace(wirelen=44))
    assert whole is not None
    assert not whole.padded


def test_cooked_records_get_a_header_and_raw_ones_cannot() -> None:
    cooked = Record(1, 0, 36, bytes.fromhex("0000 0001 0006 020000000002 0000 0800") + bytes(20), 113)
    made = as_frame(cooked)
    assert made is not None
    assert made.frame[6:14] == PEER + b"\x08\0"
    with pytest.raises(UsageError, match="no TAP can receive them"):
        as_frame(Record(1, 0, 20, b"\x45" + bytes(19), 101))


@given(st.binary(max_size=600))
def test_any_frame_can_be_shown(frame: bytes) -> None:
    text = hex_dump(frame)
    assert len(text.splitlines()) == -(-min(len(frame), 256) // 16) + (len(frame) > 256)
    assert "\n" not in decoded(frame)
