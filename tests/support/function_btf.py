"""The BTF that Linux wants with programs that pass functions on."""

from __future__ import annotations

from struct import pack
from typing import Final

MAIN_FUNCTION: Final = 3
STATIC_FUNCTION: Final = 4


def btf_with_int_functions() -> bytes:
    """BTF of two static functions without parameters that return int: type ids MAIN_FUNCTION and STATIC_FUNCTION."""
    names = b"\0int\0main\0sub\0"

    def head(name: int, kind: int, size_or_type: int) -> bytes:
        return pack("<III", name, kind << 24, size_or_type)

    types = head(1, 1, 4) + pack("<I", 1 << 24 | 32) + head(0, 13, 1) + head(5, 12, 2) + head(10, 12, 2)
    return pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names)) + types + names
