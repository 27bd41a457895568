"""Shared set-up: the tests directory on the path, so that `support` imports, and the scripts that tests try."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "scripts")]
