"""Shared set-up: the tests directory on the path, so that `support` imports."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
