"""scripts/engine_runs.py, where tests find it: the same program on both engines."""

from __future__ import annotations

import sys

from support.vectors import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from engine_chains import random_chain
from engine_runs import CHECKED, INTERP, NATIVE, Outcome, map_bytes, new_env, proved_program, run_loaded, with_functions

__all__ = [
    "CHECKED",
    "INTERP",
    "NATIVE",
    "Outcome",
    "map_bytes",
    "new_env",
    "proved_program",
    "random_chain",
    "run_loaded",
    "with_functions",
]
