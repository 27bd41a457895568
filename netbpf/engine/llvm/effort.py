"""How much is done about code: nothing, what pays in a run of a second, all that pays at all. Light: LLVM is begun with it."""

from __future__ import annotations

HASTY, BRISK, THOROUGH = range(3)
