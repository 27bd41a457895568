"""Format strings of bpf_snprintf: which ones the kernel takes, for a number of arguments. Knows text only."""

from __future__ import annotations

import re
from typing import Final

# bytes that may stand between conversions: printable, white space, or part of a UTF-8 character
_LITERAL: Final = rb"[\t-\r\x20-\x24\x26-\x7e\x80-\xff]"
# what may follow a plain %p or a %s: the end, white space or punctuation
_BOUNDARY: Final = rb"(?=\Z|[\t-\r\x20-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e])"
# one conversion that takes an argument: flags and width, then a pointer, text, a character or an integer
_CONVERSION: Final = re.compile(
    rb"%[0+\- ]*(?:[1-9][0-9]*)?"
    rb"(?:p[ku]s" + _BOUNDARY + rb"|p[iI][46]|p[BKxsS]|p" + _BOUNDARY + rb"|s" + _BOUNDARY + rb"|c|l{0,2}[diuxX])"
)
_WHOLE: Final = re.compile(rb"(?:%%|" + _LITERAL + rb"|(?P<c>" + _CONVERSION.pattern + rb"))*\Z")


def is_valid_format(fmt: bytes, num_args: int) -> bool:
    """Whether bpf_snprintf takes ``fmt`` with ``num_args`` 8-byte arguments (more than it uses are fine)."""
    if not _WHOLE.match(fmt):
        return False
    return len(_CONVERSION.findall(fmt.replace(b"%%", b""))) <= num_args
