"""The forms of `bpftool map dump`, compared with what bpftool 7.1 printed for the same contents."""

from __future__ import annotations

from typing import Any

from netbpf.abi.maps import MapType
from netbpf.maps.create import create
from netbpf.maps.dump import dump_json, dump_objects, dump_plain
from netbpf.maps.spec import MapSpec

T = MapType
EIGHT = bytes(range(8))


def counting() -> Any:
    live = create(MapSpec(T.HASH, 4, 8, 4, 0x40))
    live.update(b"\x06\0\0\0", EIGHT)
    return live


def test_short_pairs_share_a_line() -> None:
    assert dump_plain(counting()) == "key: 06 00 00 00  value: 00 01 02 03 04 05 06 07\nFound 1 element\n"


def test_json() -> None:
    value = ",".join(f'"0x{n:02x}"' for n in range(8))
    assert dump_json(counting()) == f'[{{"key":["0x06","0x00","0x00","0x00"],"value":[{value}]}}]\n'
    assert dump_json(create(MapSpec(T.HASH, 4, 8, 4))) == "[]\n"


def test_pretty_json() -> None:
    live = create(MapSpec(T.PERCPU_HASH, 4, 2, 4), n_cpus=2)
    live.update_user(bytes(4), b"ab" + bytes(6) + b"cd" + bytes(6))
    assert dump_json(live, pretty=True) == (
        "[{\n"
        '        "key": ["0x00","0x00","0x00","0x00"\n'
        "        ],\n"
        '        "values": [{\n'
        '                "cpu": 0,\n'
        '                "value": ["0x61","0x62"\n'
        "                ]\n"
        "            },{\n"
        '                "cpu": 1,\n'
        '                "value": ["0x63","0x64"\n'
        "                ]\n"
        "            }\n"
        "        ]\n"
        "    }\n"
        "]\n"
    )
    assert dump_json(create(MapSpec(T.HASH, 4, 8, 4)), pretty=True) == "[]\n"


def test_long_keys_and_values_break() -> None:
    live = create(MapSpec(T.HASH, 17, 20, 4))
    live.update(bytes(range(17)), bytes(range(20)))
    assert dump_plain(live) == (
        "key:\n00 01 02 03 04 05 06 07  08 09 0a 0b 0c 0d 0e 0f\n10\n"
        "value:\n00 01 02 03 04 05 06 07  08 09 0a 0b 0c 0d 0e 0f\n10 11 12 13\nFound 1 element\n"
    )
    live = create(MapSpec(T.HASH, 16, 9, 4))
    live.update(bytes(16), bytes(9))
    zeroes = "00 00 00 00 00 00 00 00"
    assert dump_plain(live) == f"key: {zeroes}  {zeroes}\nvalue: {zeroes}  00\nFound 1 element\n"


def test_per_cpu_values() -> None:
    live = create(MapSpec(T.PERCPU_ARRAY, 4, 4, 1), n_cpus=2)
    live.update(bytes(4), b"\1\2\3\4", 0, 1)
    assert dump_plain(live) == (
        "key:\n00 00 00 00\nvalue (CPU 00): 00 00 00 00\nvalue (CPU 01): 01 02 03 04\nFound 1 element\n"
    )


def test_what_cannot_be_read() -> None:
    perf = create(MapSpec(T.PERF_EVENT_ARRAY, 4, 4, 1))
    assert dump_plain(perf) == "key:\n00 00 00 00\nvalue:\nUnknown error 524\nFound 0 elements\n"
    assert dump_objects(perf)[0]["value"] == {"error": "Unknown error 524"}
    assert dump_plain(create(MapSpec(T.PROG_ARRAY, 4, 4, 3))) == "Found 0 elements\n"
    assert dump_plain(create(MapSpec(T.QUEUE, 0, 4, 3))) == "Found 0 elements\n"


def test_inner_maps_show_their_id() -> None:
    inner = MapSpec(T.ARRAY, 4, 4, 1)
    live: Any = create(MapSpec(T.ARRAY_OF_MAPS, 4, 4, 3, inner=inner))
    live.put((1).to_bytes(4, "little"), create(inner, map_id=0x2FB))
    assert dump_plain(live) == "key: 01 00 00 00  value: fb 02 00 00\nFound 1 element\n"
