"""Prototypes of the functions that only a translated classic filter calls (``abi.classic`` says why). Tables only."""

from __future__ import annotations

from typing import Final

from netbpf.abi.arg_types import ARG_ANYTHING, ARG_PTR_TO_CTX
from netbpf.abi.classic import CLASSIC_FUNC_NAMES
from netbpf.abi.helpers import HelperProto

CLASSIC_HELPERS: Final[dict[int, HelperProto]] = {
    number: HelperProto(number, name, "3.15", cap="", args=(ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING))
    for number, name in CLASSIC_FUNC_NAMES.items()
}
"""(skb, A, X) -> the new A, by number."""
