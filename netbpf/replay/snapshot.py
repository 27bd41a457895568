"""Reading a map whole, and saying it in one line a second. Knows maps, no packet and no program."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from netbpf.abi.maps import MAP_KINDS, MapType
from netbpf.maps import dump
from netbpf.maps.base import ReadableMap

# IANA protocol numbers by the names that tcpdump and /etc/protocols readers know
IP_PROTOCOLS = {
    0: "HOPOPT",
    1: "ICMP",
    2: "IGMP",
    4: "IPIP",
    6: "TCP",
    8: "EGP",
    17: "UDP",
    41: "IPv6",
    47: "GRE",
    50: "ESP",
    51: "AH",
    58: "ICMPv6",
    88: "EIGRP",
    89: "OSPF",
    103: "PIM",
    112: "VRRP",
    132: "SCTP",
    136: "UDPLite",
}

Entry = tuple[bytes, bytes]


def entries(m: ReadableMap, most: int | None = None) -> list[Entry]:
    """(key, value) in the map's own order, at most ``most``; a per-CPU value is every CPU's copy, padded to 8 bytes. Entries
    whose value cannot be read, and kinds without keys, give none."""
    rows = ((k, v) for k, v in dump.entries(m) if isinstance(v, bytes))
    return list(islice(rows, most))


def values(m: ReadableMap, value: bytes) -> list[bytes]:
    """The value, or each CPU's copy of it."""
    return dump.cpu_values(m, value) if is_per_cpu(m) else [value]


def is_per_cpu(m: ReadableMap) -> bool:
    return MAP_KINDS[m.spec.map_type].per_cpu


def number(m: ReadableMap, value: bytes) -> int | None:
    """A value of 1, 2, 4 or 8 bytes as a number, summed over the CPUs; None when it is no number."""
    if m.spec.value_size not in (1, 2, 4, 8):
        return None
    return sum(int.from_bytes(v, "little") for v in values(m, value))


def counter_line(maps: Mapping[str, ReadableMap], most: int = 8) -> str:
    """One line for all maps that count, as the manual page prints them: ``TCP 12 UDP 4 packets``.

    A map whose 4-byte keys are all IP protocol numbers is told by their names; any other as ``name: key=value ...``,
    ``most`` entries of each.
    """
    parts = []
    for name, m in maps.items():
        rows = [(k, number(m, v), v) for k, v in entries(m, most + 1)]
        if not rows:
            continue
        if counts_protocols(m, [k for k, _, _ in rows]):
            told = sorted((int.from_bytes(k, "little"), n) for k, n, _ in rows)
            parts.append(" ".join(f"{IP_PROTOCOLS[k]} {n}" for k, n in told) + " packets")
        else:
            shown = " ".join(f"{_key_text(k)}={v.hex() if n is None else n}" for k, n, v in rows[:most])
            parts.append(f"{name}: {shown}{' ...' if len(rows) > most else ''}")
    return "; ".join(parts)


def labelled(m: ReadableMap, most: int) -> list[tuple[str, int | None]]:
    """(key in words, value as a number or None) of at most ``most`` entries; IP protocols by their names."""
    rows = [(k, number(m, v)) for k, v in entries(m, most)]
    if rows and counts_protocols(m, [k for k, _ in rows]):
        return sorted(((IP_PROTOCOLS[int.from_bytes(k, "little")], n) for k, n in rows), key=lambda row: row[0])
    return [(_key_text(k), n) for k, n in rows]


def counts_protocols(m: ReadableMap, keys: list[bytes]) -> bool:
    """Whether a map of these keys is one that counts by IP protocol, as the manual page's does."""
    is_hash = m.spec.map_type in (MapType.HASH, MapType.PERCPU_HASH)
    return (
        is_hash
        and m.spec.key_size == 4
        and m.spec.value_size == 8
        and all(int.from_bytes(k, "little") in IP_PROTOCOLS for k in keys)
    )


def _key_text(key: bytes) -> str:
    return str(int.from_bytes(key, "little")) if len(key) in (1, 2, 4, 8) else key.hex()
