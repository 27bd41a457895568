"""Keys and values of maps by the types a program's BTF declares for them."""

from __future__ import annotations

from functools import partial

from netbpf.btf import Btf, format_value
from netbpf.maps.dump import Formatter
from netbpf.program import ProgramSpec


def map_formatters(spec: ProgramSpec) -> dict[str, tuple[Formatter, Formatter]]:
    """By map: what its declared types make of the bytes of a key and of a value. Maps without types are left out."""
    if not spec.btf:
        return {}
    btf = Btf.parse(spec.btf)
    return {
        decl.spec.name: (partial(format_value, btf, decl.spec.btf_key_type_id), partial(format_value, btf, value_type))
        for decl in spec.maps
        if (value_type := decl.spec.btf_value_type_id)
    }
