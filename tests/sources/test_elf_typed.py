"""Keys and values of an object's maps by their types."""

from __future__ import annotations

import json

from support.objects import read

from netbpf.btf import KIND_DATASEC, Btf, format_value
from netbpf.maps.create import create
from netbpf.maps.dump import dump, dump_objects
from netbpf.replay.typed import map_formatters


def test_structs_and_numbers() -> None:
    spec = read("flow_hash")
    decl = spec.maps[0]
    live = create(decl.spec)
    key = (10 << 24 | 1).to_bytes(4, "little") + (7).to_bytes(4, "little") + b"\x39\x30\x50\0" + b"\6\0\0\0"
    live.update_user(key, (3).to_bytes(8, "little") + (180).to_bytes(8, "little"))
    typed = map_formatters(spec)["flows"]
    (row,) = dump_objects(live, typed)
    assert row["formatted"] == {
        "key": {"source": 10 << 24 | 1, "destination": 7, "source_port": 12345, "destination_port": 80, "protocol": 6},
        "value": {"packets": 3, "bytes": 180},
    }
    assert json.loads(dump(live, "json", typed))[0]["formatted"] == row["formatted"]
    assert "formatted" not in dump(live, "pretty")


def test_global_data_by_name() -> None:
    spec = read("globals", "sum_up")
    formatters = map_formatters(spec)
    rodata = next(d for d in spec.maps if d.spec.name == "globals.rodata")
    value = formatters["globals.rodata"][1](rodata.contents[0][1])
    assert value == {".rodata": [{"weights": [1, 10, 100, 1000]}, {"limit": 1500}]}
    assert formatters["globals.rodata"][0](bytes(4)) == 0


def test_per_cpu_values() -> None:
    spec = read("flow_tail_calls")
    decl = next(d for d in spec.maps if d.spec.name == "scratch")
    live = create(decl.spec, n_cpus=2)
    (row,) = dump_objects(live, map_formatters(spec)["scratch"])
    assert [copy["cpu"] for copy in row["formatted"]["values"]] == [0, 1]
    assert row["formatted"]["values"][1]["value"]["protocol"] == 0


def test_enumerators_bools_and_text() -> None:
    btf = Btf.parse(read("globals", "settings_of").btf)
    datasec = btf.find(".kconfig", KIND_DATASEC)
    spec = next(d for d in read("globals", "settings_of").maps if d.spec.name == "globals.kconfig")
    fields = {}
    for field in format_value(btf, datasec, spec.contents[0][1])[".kconfig"]:
        fields |= field
    assert fields == {
        "CONFIG_HZ": 250,
        "CONFIG_BPF_SYSCALL": True,
        "CONFIG_TUN": "TRI_MODULE",
        "CONFIG_CC_VERSION_TEXT": "clang",
        "LINUX_KERNEL_VERSION": 6 << 16 | 18 << 8,
    }


def test_maps_without_types() -> None:
    assert map_formatters(read("legacy_maps")) == {}
