"""tcpdump expressions: compiled by libpcap, read as libpcap reads them on a file, and what is said when it can't be."""

from __future__ import annotations

import ctypes
import random
from typing import Any

import pytest
from support.expressions import EXPRESSIONS, REFUSED

from netbpf.engine.base import Loaded
from netbpf.engine.interp.engine import InterpEngine
from netbpf.env import SteppedEnv
from netbpf.errors import ProgramRejected, SourceError, UsageError
from netbpf.isa.classic import ALLOWED_CODES, BPF_STMT, CONDITIONAL_JUMPS, ClassicProgram, SockFilter
from netbpf.packet.receive import receive
from netbpf.packet.record import Record
from netbpf.sources import cbpf, expr
from netbpf.sources.cbpf_check import check_savefile
from netbpf.verifier.check import verify
from netbpf.verifier.env import LoadRequest

needs_libpcap = pytest.mark.skipif(expr.find_libpcap() is None, reason="no libpcap here")


def test_without_libpcap_one_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expr, "find_libpcap", lambda: None)
    with pytest.raises(UsageError, match=r"apt install libpcap0\.8") as e:
        expr.compile_expression("ip")
    assert e.value.exit_code == 64


@needs_libpcap
def test_compiles_as_tcpdump_does() -> None:
    assert cbpf.format_d(expr.compile_expression("ip and udp port 53")).splitlines()[:3] == [
        "(000) ldh      [12]",
        "(001) jeq      #0x800           jt 2\tjf 12",
        "(002) ldb      [23]",
    ]
    assert expr.compile_expression("") == (BPF_STMT(6, 262144),)
    assert expr.compile_expression("", snaplen=96) == (BPF_STMT(6, 96),)
    assert len(expr.compile_expression("tcp port 80", optimize=False)) > len(expr.compile_expression("tcp port 80"))
    assert expr.compile_expression("ip broadcast", netmask=0xFFFFFF)
    assert expr.libpcap_version().startswith("libpcap version")


@needs_libpcap
def test_link_types_of_files() -> None:
    raw = expr.compile_expression("ip6", 101)
    assert raw == expr.compile_expression("ip6", 12)
    assert expr.compile_expression("ip", 113)[0] == BPF_STMT(0x28, 14)
    assert expr.linktype_of_name("EN10MB") == 1
    with pytest.raises(UsageError, match="'EN10GB'"):
        expr.linktype_of_name("EN10GB")
    with pytest.raises(SourceError, match="9999"):
        expr.compile_expression("ip", 9999)


@needs_libpcap
@pytest.mark.parametrize(("text", "words"), REFUSED.items())
def test_libpcaps_words_for_a_bad_expression(text: str, words: str) -> None:
    with pytest.raises(SourceError) as e:
        expr.compile_expression(text)
    assert words in e.value.message
    assert e.value.exit_code == 65


@needs_libpcap
@pytest.mark.parametrize("text", ["ip\0", "ip " + "or ip " * 200_000])
def test_text_that_is_no_expression(text: str) -> None:
    with pytest.raises(SourceError, match="no expression is so long"):
        expr.compile_expression(text)


# --- the file view: libpcap's interpreter as judge ----------------------------------------------------------------------------


def _array(insns: ClassicProgram) -> Any:
    return (expr._BpfInsn * len(insns))(*(expr._BpfInsn(*i) for i in insns))


def libpcap_verdict(insns: ClassicProgram, data: bytes, wirelen: int) -> int:
    run = expr.find_libpcap().bpf_filter
    run.restype, run.argtypes = ctypes.c_uint, [ctypes.POINTER(expr._BpfInsn), ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint]
    return int(run(_array(insns), data, wirelen, len(data)))


def libpcap_takes(insns: ClassicProgram) -> bool:
    return bool(expr.find_libpcap().bpf_validate(_array(insns), len(insns)))


def proved(insns: ClassicProgram) -> Loaded:
    result = verify(LoadRequest(cbpf.to_spec(insns, savefile=True).insns))
    assert result.program is not None, f"{cbpf.format_d(insns)}\n{result.log}"
    return InterpEngine().load(result.program, SteppedEnv(1))


def our_verdict(loaded: Loaded, data: bytes, wirelen: int) -> int:
    skb = receive(Record(1, 0, wirelen, data, 1), view="file")
    assert skb is not None
    return loaded.run_one(skb) & 0xFFFF_FFFF


CODES = sorted(ALLOWED_CODES - {0x81})  # ldx len: libpcap's interpreter has none
SMALL_KS = (0, 1, 3, 15, 16, 31, 32, 33)
KS = (*SMALL_KS, 0xFFFFF000, 0xFFFFF004, 0xFFF00000, 0xFFF0000C, 0xFFE00000, 1 << 30, (1 << 30) - 1, (1 << 31) - 1, 0xFFFFFFFF)


def random_filter(rng: random.Random) -> ClassicProgram:
    body = []
    count = rng.randrange(3, 20)
    for pc in range(count):
        code, left = rng.choice(CODES), count - pc
        code = 4 if code in (0x06, 0x16) else code
        k = rng.choice(KS) if rng.random() < 0.6 else rng.randrange(64)
        k = rng.randrange(16) if code in (0x02, 0x03, 0x60, 0x61) else rng.randrange(min(left, 5)) if code == 0x05 else k
        k = k % 32 if code in (0x64, 0x74) else k  # libpcap takes longer shifts up to 1.10
        jt, jf = (rng.randrange(min(left, 4) + 1) for _ in range(2))
        body.append(SockFilter(code, jt, jf, k) if code in CONDITIONAL_JUMPS else BPF_STMT(code, k))
    return (*(BPF_STMT(0x02, i) for i in range(16)), *body, BPF_STMT(0x16, 0))


@needs_libpcap
def test_random_filters_mean_what_libpcap_says() -> None:
    rng, ran, kept = random.Random(5), 0, 0
    while ran < 300:
        insns = random_filter(rng)
        try:
            check_savefile(insns)
        except ProgramRejected:
            assert not libpcap_takes(insns), cbpf.format_d(insns)
            continue
        assert libpcap_takes(insns), cbpf.format_d(insns)
        ran += 1
        loaded = proved(insns)
        for _ in range(4):
            data = bytes(rng.choice((rng.randrange(256), 0, 255, 1)) for _ in range(rng.choice((1, 14, 20, 60))))
            wirelen = len(data) + rng.choice((0, 0, 100))
            theirs = libpcap_verdict(insns, data, wirelen)
            kept += theirs != 0
            assert our_verdict(loaded, data, wirelen) == theirs, cbpf.format_d(insns)
    assert kept > 100


def packets() -> list[bytes]:
    """Ethernet frames with the tag in line, as a file has them, whole and cut."""
    ethernet = bytes.fromhex("ffffffffffff020000000001")
    ip = bytes.fromhex("45000020000100004011000001020304050607080001003500 0c0000deadbeef".replace(" ", ""))
    tcp = bytes.fromhex("4500002800010000400600000a0000010a000002000100500000000000000000500200000000 0000".replace(" ", ""))
    hop_by_hop = bytes(15) + b"\1" + bytes(15) + b"\2" + bytes([60, 0, 0, 0, 0, 0, 0, 0, 6, 1]) + bytes(14) + tcp[20:]
    six = bytes.fromhex("60000000") + len(hop_by_hop[32:]).to_bytes(2) + bytes([0, 64]) + hop_by_hop
    types = {"0800": (ip, tcp), "86dd": (six,), "0806": (bytes.fromhex("0001080006040001") + bytes(20),)}
    whole = [ethernet + bytes.fromhex(t) + p for t, payloads in types.items() for p in payloads]
    tagged = [f[:12] + bytes.fromhex("81000005") + f[12:] for f in whole]
    double = [f[:12] + bytes.fromhex("88a80007") + f[12:] for f in tagged]
    every = [*whole, *tagged, *double]
    return [*every, *(f[:cut] for f in every[::2] for cut in (1, 13, 15, 24, 38))]


@needs_libpcap
def test_expressions_on_a_file_mean_what_libpcap_says() -> None:
    frames = packets()
    for text in [*EXPRESSIONS, "ip6 protochain 6", "ip protochain 17", "ip6 protochain 60"]:
        insns = expr.compile_expression(text)
        loaded = proved(insns)
        for data in frames:
            assert our_verdict(loaded, data, len(data)) == libpcap_verdict(insns, data, len(data)), (text, data.hex())
