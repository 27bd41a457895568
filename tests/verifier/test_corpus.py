"""The recorded kernel verdicts for socket filters: no false accept, the same errno and reason, the same log."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.vectors import vectors_dir

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from verifier_corpus import compare, select, summarise

pytestmark = pytest.mark.vectors


@pytest.mark.parametrize(
    ("name", "modes"),
    [("alu", ["priv", "capbpf", "unpriv"]), ("selftests", ["priv", "unpriv"]), ("sweep", ["priv", "unpriv"])],
)
def test_agreement(name: str, modes: list[str]) -> None:
    files = [str(vectors_dir() / "verifier" / f"{name}.jsonl.gz")]
    asked = [q for q in select(files, ["socket_filter"], modes) if (q.expected.processed or 0) < 20_000]
    outcomes = [compare(q) for q in asked]
    for mode, counts in summarise(outcomes, ["socket_filter"], modes)["socket_filter"].items():
        rows = [o for o in outcomes if o.privilege == mode]
        wrong = [o.id for o in rows if o.cell.startswith("false")]
        assert not wrong, wrong
        assert counts["errno_equal"] == counts["both_reject"], [o.id for o in rows if o.errno is False]
        for agreement in ("reason", "processed", "log"):
            compared = [o for o in rows if getattr(o, agreement) is not None]
            differing = [o.id for o in compared if not getattr(o, agreement)]
            assert len(differing) * 100 <= len(compared), differing
