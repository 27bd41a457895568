"""Whether scouts (``prefetch``) are worth compiling for a capture. Imports nothing: quick starts ask, too."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap

    from netbpf.packet.layout import RecordLayout

SCOUTED_BYTES = 128 << 20  # of a capture, from which on they save more than their compilation takes
SAMPLE = 64
LARGE = 384  # bytes of a record, as ``kernels.scouts`` has it
HEADER_BYTES = 32


def wants_scouts(data: "bytes | bytearray | memoryview | mmap.mmap", at: int, end: int, layout: "RecordLayout") -> bool:
    """Whether the records from ``at`` on are large, as far as there are any before ``end``."""
    is_pcapng = layout.kind == "pcapng"
    length_at = 4 if is_pcapng else 12 if layout.wirelen_first else 8
    header = 0 if is_pcapng else layout.header_bytes
    return pays(data, at, end, length_at, header, is_big=layout.byteorder == "big")


def pays(
    data: "bytes | bytearray | memoryview | mmap.mmap", at: int, end: int, length_at: int = 8, header: int = 16,
    *, is_big: bool = False,
) -> bool:  # fmt: skip
    """The same of records whose headers hold, at ``length_at``, by how much more than ``header`` bytes the next one is away."""
    first = at
    for _ in range(SAMPLE):
        if at + HEADER_BYTES > end:
            break
        word = data[at + length_at : at + length_at + 4]
        at += int.from_bytes(word, "big" if is_big else "little") + header
    return at - first >= SAMPLE * LARGE
