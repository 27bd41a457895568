"""Where the shared vectors lie, and how tests skip without them."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def vectors_dir() -> Path:
    """NETBPF_VECTORS, or ../shared/vectors beside the checkout; skips the calling test (or module) when neither is there."""
    path = Path(os.environ.get("NETBPF_VECTORS", ROOT.parent / "shared" / "vectors"))
    if not path.is_dir():
        pytest.skip(f"no shared vectors at {path} (set NETBPF_VECTORS)", allow_module_level=True)
    return path


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a gzip-compressed JSON-lines file."""
    with gzip.open(path, "rt") as f:
        for line in f:
            yield json.loads(line)
