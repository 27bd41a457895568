"""Maps that are no tables of keys and values: queues, stacks, bloom filters, maps of maps. On the simulator, and on the kernel
with no difference where it may be asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.kernel import KERNEL_REASON

from netbpf.errors import SourceError
from netbpf.scenario.read import read_file, read_text
from netbpf.scenario.show import format_result
from netbpf.scenario.suite import BROKEN, FAILED, PASSED, Result, items_of, run_item
from netbpf.scenario.update import Updater

HEX = "020000000001 020000000002 0800 45 00 001c 0001 0000 40 11 0000 0a000002 0a000001 0035 0035 0008 0000"
PUSH = """    r1 = map[{name}]
    r2 = r10
    r2 += -4
    r3 = 0
    call bpf_map_push_elem
"""
TEXT = f'''netbpf = 1
[program]
asm = """
.map q queue value=4 entries=4
.map s stack value=4 entries=4
.map b bloom_filter value=4 entries=64
.map one hash key=4 value=8 entries=4
.map two hash key=4 value=8 entries=4 {{
    1: 2
}}
.map outer hash_of_maps key=4 value=4 entries=4 inner(hash key=4 value=8 entries=4) {{
    1: &one
    2: &two
}}
    r6 = r1
    r1 = *(u32 *)(r6 + 0)
    *(u32 *)(r10 - 4) = r1
{"".join(PUSH.format(name=n) for n in "qsb")}
    *(u32 *)(r10 - 4) = 1
    r1 = map[outer]
    r2 = r10
    r2 += -4
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = r0
    *(u64 *)(r10 - 16) = 9
    r2 = r10
    r2 += -4
    r3 = r10
    r3 += -16
    r4 = 0
    call bpf_map_update_elem
out:
    r0 = 0
    exit
"""
[maps]
q.elements = [7, 8]
s.elements = [7, 8]
b.elements = [500]
[[packet]]
hex = "{HEX}"
expect = {{ maps = {{ q = {{ elements = [7, 8, 42] }}, s = {{ elements = [42, 8, 7] }} }} }}
[[packet]]
hex = "{HEX} 00"
[expect.maps]
'''
TRUE = [
    "q.elements = [7, 8, 42, 43]\ns.elements = [43, 42, 8, 7]",
    "q = { elements = [8, 43], match = 'subset', count = 4 }\ns.count = 4",
    "b = { has = [42, 43, 500], lacks = [7, 8, 44] }",
    "b.has = []",
    "outer.count = 2\nouter.inner.1.entries = { 1 = 9 }\nouter.inner.2 = { entries = { 1 = 2 }, count = 1 }",
    "outer.inner.0x1 = { match = 'subset', entries = {} }",
]
FALSE = [
    ("q.elements = [7, 8, 43, 42]", "7\n            8\n            43", "7\n            8\n            42"),
    ("q.elements = [7, 8, 42]", "expected", "43"),
    ("s.elements = [7, 8, 42, 43]", "7\n", "43\n"),
    ("s.count = 3", "expected: 3", "got:      4"),
    ("b.has = [42, 44]", "expected: 44", "not there"),
    ("b.lacks = [43, 44]", "expected: 43", "there, or one that looks like it"),
    ("outer.inner.1.entries = { 1 = 8 }", "1: 8", "1: 9"),
    ("outer.inner.3.count = 0", "a map", "not there"),
]
MISTAKES = [
    ("q.entries = { 1 = 2 }", "of q can be expected: elements, count"),
    ("b.count = 1", "of b can be expected: has, lacks"),
    ("one.elements = [1]", "of one can be expected: entries, count"),
    ("q.elements = ['x']", "q: "),
    ("outer.inner.x.count = 1", "outer: "),
    ("outer.inner.1.has = [1]", "of outer[1] can be expected: entries, count"),
    ("outer.entries = { 1 = 2 }", "say count, or inner"),
]


def results(said: str) -> list[Result]:
    cases = read_text(TEXT + said + "\n", "f.scenario.toml")
    sim = [run_item(i) for engine in ("interp", "native") for i in items_of(cases, "sim", engine)]
    return sim + [run_item(i) for i in items_of(cases, "both") if not KERNEL_REASON and i.backend == "kernel"]


@pytest.mark.parametrize("said", TRUE, ids=range(len(TRUE)))
def test_what_is_true(said: str) -> None:
    for found in results(said):
        assert found.status == PASSED, format_result(found)


@pytest.mark.parametrize(("said", "expected", "got"), FALSE, ids=range(len(FALSE)))
def test_what_is_false(said: str, expected: str, got: str) -> None:
    line = TEXT.count("\n") + 1
    for found in results(said):
        told = format_result(found)
        assert found.status == FAILED, told
        assert told.startswith(f"f.scenario.toml:{line}: at the end: map "), told
        assert expected in told
        assert got in told
        assert not found.differences


@pytest.mark.parametrize(("said", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes(said: str, message: str) -> None:
    found = results(said)[0]
    assert found.status == BROKEN
    assert message in found.reason
    assert f"f.scenario.toml:{TEXT.count(chr(10)) + 1}:" in found.reason


def test_mistakes_of_reading() -> None:
    wrong = {"q.elements = 5": "elements are a list", "b.has = 5": "values that it has are a list", "q = {}": "inner of"}
    for said, message in wrong.items():
        with pytest.raises(SourceError, match=message):
            read_text(TEXT + said, "f")
    for setup, message in (("elements = 5", "elements are a list"), ("entries = {}\nelements = []", "entries, with keys")):
        with pytest.raises(SourceError, match=message):
            read_text(f"netbpf = 1\n[program]\nasm = 'exit'\n[maps.m]\n{setup}\n", "f")


def test_update(tmp_path: Path) -> None:
    path = tmp_path / "f.scenario.toml"
    said = "q.elements = {}  # in order\ns = {{ elements = [43, 42, 8, 7], count = {} }}\n"
    said += "b.has = {}\nouter.inner.1.entries = {{ 1 = {} }}\n"
    path.write_text(TEXT + said.format("[1]", 9, "[42, 44]", 8))
    (item,) = items_of(read_file(str(path)))
    updater = Updater()
    assert updater.take(run_item(item))
    updater.write()
    assert path.read_text() == TEXT + said.format("[7, 8, 42, 43]", 4, "[42]", 9)


def test_layouts_of_inner_maps() -> None:
    said = "outer.inner.1.entries = { 1 = { low = 9, high = 0 } }\n[maps.outer.inner]\nvalue = 'u32 low, u32 high'"
    assert [format_result(r) for r in results(said)] == [""] * (2 if KERNEL_REASON else 3)
    (item,) = items_of(read_text(TEXT + "[maps.one.inner]\nvalue = 'u32'\n", "f"))
    assert "one is no map of maps" in run_item(item).reason
