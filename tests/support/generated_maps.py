"""The maps that generated programs (scripts/verifier_programs.py) use, made on a process."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from verifier_btf import LIBRARY
from verifier_records import map_spec

from netbpf.host.calls import BpfCalls


def new_map(process: BpfCalls, name: str, record: dict[str, Any], btf_fd: int, rng: random.Random) -> int:
    """A map of the record's shape whose values are random bytes."""
    spec = map_spec(name, record)
    kind = next((k for k in LIBRARY.values if f"bpf_{k} " in (record.get("btf_value") or "")), None)
    if kind:
        return process.map_create(
            spec._replace(btf_key_type_id=LIBRARY.key, btf_value_type_id=LIBRARY.values[kind]), btf_fd=btf_fd
        )
    fd = process.map_create(spec)
    if record["key_size"] == 4 and record["type"] == "array":
        for index in range(record["max_entries"]):
            process.map_update_elem(fd, index.to_bytes(4, "little"), rng.randbytes(record["value_size"]))
    elif record["type"] in ("hash", "lru_hash"):
        process.map_update_elem(fd, bytes(record["key_size"]), rng.randbytes(record["value_size"]))
    return fd
