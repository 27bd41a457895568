"""A program is told by its content first and its suffix second."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.libpcap import needs_libpcap

import netbpf
from netbpf.errors import ProgramRejected, SourceError, UsageError
from netbpf.isa.classic import BPF_STMT, encode_classic
from netbpf.isa.instruction import encode
from netbpf.sources.asm import format_program, parse
from netbpf.sources.expr import compile_expression
from netbpf.sources.load import ObjectOptions, parse_program, read_program

COUNTING = (Path(__file__).parents[2] / "scenarios" / "counting.s").read_text()
OBJECTS = Path(__file__).parents[1] / "data" / "objects"
RET = BPF_STMT(0x06, 0xFFFFFFFF)
CLASSIC = {
    "ddd": "1\n6 0 0 4294967295\n",
    "commas": "1,6 0 0 4294967295",
    "dd": "{ 0x6, 0, 0, 0xffffffff },\n",
    "commented": "/* keep */ // all\n{ 0x6, 0, 0, 0xffffffff },\n",
    "declared": "#include <linux/filter.h>\nstatic struct sock_filter code[] = { /* all */\n\t{ 0x6, 0, 0, 0xffffffff },\n};\n",
    "crlf": "1\r\n6 0 0 4294967295\r\n",
    "byte order mark": "\ufeff1\n6 0 0 4294967295\n",
    "d": "(000) ret      #-1\n",
    "bpf_asm": "; keep all\n/* two\nlines */ start: ret #-1\n",
}


@pytest.mark.parametrize("form", CLASSIC)
@pytest.mark.parametrize("suffix", ["", ".txt", ".filter", ".cbpf"])
def test_classic_text(form: str, suffix: str) -> None:
    spec = parse_program(CLASSIC[form].encode(), f"keep{suffix}")
    assert spec.classic == (RET,)
    assert spec.name == "keep"
    assert spec.insns[-2:] == parse("w0 = -1\nexit").insns


def test_classic_bytes() -> None:
    assert parse_program(encode_classic((RET,)), "x.sock_filter").classic == (RET,)


ASSEMBLY = [COUNTING, "r0 = 0\nexit", "ld: r0 = 0\nexit", ".const ld = 5\nr0 = ld\nexit", "add = 5\nexit", "exit", "call 1"]


@pytest.mark.parametrize("text", ASSEMBLY)
def test_assembly_is_not_mistaken(text: str) -> None:
    assert parse_program(text.encode(), "x").classic == ()


def test_a_suffix_decides_where_words_do_not() -> None:
    with pytest.raises(SourceError, match="'ret' begins no instruction"):
        parse_program(b"ret #0", "x.s")
    with pytest.raises(SourceError, match="'r0' is no mnemonic"):
        parse_program(b"r0 = 0", "x.cbpf")


def test_a_filter_the_kernel_refuses_is_refused_here() -> None:
    with pytest.raises(ProgramRejected, match=r"EINVAL.*the last instruction is no 'ret'"):
        parse_program(b"ld [0]", "x")


def test_raw_instructions(tmp_path: Path) -> None:
    raw = tmp_path / "keep.bin"
    raw.write_bytes(encode(parse("r0 = -1\nexit").insns))
    assert read_program(str(raw)).name == "keep"


@pytest.mark.parametrize("view", ["socket", "file"])
def test_a_translated_filter_round_trips_as_assembly(view: str) -> None:
    spec = parse_program(CLASSIC["d"].encode(), "keep", ObjectOptions(view=view))
    assert spec.view == view
    assert parse(format_program(spec)) == spec


# --- netbpf.load ----------------------------------------------------------------------------------------------------------------


def test_load_takes_paths_bytes_and_text(tmp_path: Path) -> None:
    path = tmp_path / "counting.s"
    path.write_text(COUNTING)
    wanted = parse(COUNTING, str(path)).insns
    for source in (path, str(path), COUNTING, COUNTING.encode()):
        assert netbpf.load(source).insns == wanted
    spec = netbpf.load(path)
    assert netbpf.load(spec) is spec
    assert netbpf.load(f"{OBJECTS}/flow_tail_calls.o:read_ip").name == "read_ip"
    assert netbpf.load(OBJECTS / "flow_tail_calls.o", program="read_ip").name == "read_ip"
    for form in CLASSIC.values():
        assert netbpf.load(form).classic == (RET,)


@pytest.mark.parametrize("text", ASSEMBLY)
def test_load_tells_assembly_from_expressions(text: str) -> None:
    if text == "add = 5\nexit":
        pytest.skip("a constant of this spelling alone is told by a file's suffix")
    assert netbpf.load(text).insns == parse(text).insns


@needs_libpcap
@pytest.mark.parametrize(
    "text", ["", "tcp port 443", "ip", "len > 5", "ether[0] & 1 != 0", "not (udp or icmp)", "(tcp)", "1 = 1"]
)
def test_load_takes_expressions_in_the_view_of_a_file(text: str) -> None:
    spec = netbpf.load(text)
    assert (spec.view, spec.name) == ("file", "filter")
    assert spec.classic == compile_expression(text)
    assert netbpf.load(text, view="socket").view == "socket"
    assert netbpf.load(text, optimize=False).classic == compile_expression(text, optimize=False)


@needs_libpcap
def test_an_expression_is_compiled_for_the_link_type_at_hand() -> None:
    assert netbpf.load("tcp", linktype=113).classic == compile_expression("tcp", 113)
    # at a packet socket, what a cooked capture was taken from has an Ethernet header
    assert netbpf.load("tcp", linktype=113, view="socket").classic == compile_expression("tcp", 1)
    assert netbpf.load("tcp", linktype=228, view="socket").classic == compile_expression("tcp", 101)


@needs_libpcap
@pytest.mark.parametrize("linktype", [-1, 1 << 16, 1 << 40, "EN10MB"])
def test_a_link_type_is_a_number_of_16_bits(linktype: int) -> None:
    with pytest.raises(UsageError, match="a link type is a number from 0 to 65535"):
        netbpf.load("tcp", linktype=linktype)


def test_load_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.s"):
        netbpf.load("gone.s")
    with pytest.raises(FileNotFoundError, match=r"gone\.o"):
        netbpf.load("gone.o:main")
    with pytest.raises(UsageError, match="a view is one of socket, file, not 'packet'"):
        netbpf.load("tcp", view="packet")
    with pytest.raises(SourceError):
        netbpf.load("r0 = = 0\nexit")
