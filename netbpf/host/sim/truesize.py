"""What a packet counts against a receive buffer: skb->truesize, as SO_MEMINFO of Linux 6.18 on x86-64 showed it."""

from __future__ import annotations

from typing import Final

from netbpf.abi.net import ETH_HLEN

SK_BUFF_BYTES: Final = 256  # sizeof(struct sk_buff), aligned
SHARED_INFO_BYTES: Final = 320  # struct skb_shared_info behind the data
HEAD_SIZES: Final = (576, 1024, 2048, 4096, 8192, 16384, 32768)  # what the allocator gives a head
PAGE_BYTES: Final = 4096
MIN_RCVBUF: Final = 2048 + SK_BUFF_BYTES
MIN_SNDBUF: Final = 2 * MIN_RCVBUF
# headroom, and the bytes in the head of a packet that does not fit a page
WRITTEN_TO_TAP: Final = (64, PAGE_BYTES - SHARED_INFO_BYTES - 64)
SENT_BY_SOCKET: Final = (16, ETH_HLEN)
DATAGRAM_LINEAR_MAX: Final = 4 * PAGE_BYTES - SHARED_INFO_BYTES  # a datagram longer than that is kept in page fragments
DATAGRAM_ROOM: Final = 16 + 15  # for the link header, and to align


def head_truesize(wanted: int) -> int:
    """An sk_buff with room for ``wanted`` bytes in its head."""
    size = -(-wanted // 64) * 64 + SHARED_INFO_BYTES
    return SK_BUFF_BYTES + next(head for head in HEAD_SIZES if head >= size)


def head_room(truesize: int) -> int:
    """Bytes of packet that an sk_buff which counts ``truesize``, and is all in its head, has place for."""
    return truesize - SK_BUFF_BYTES - SHARED_INFO_BYTES


def skb_truesize(length: int, headroom: int, linear: int) -> int:
    """The sk_buff, its head, and pages for what is not in the head."""
    if headroom + length < PAGE_BYTES:
        linear = length
    linear = min(linear, length)
    return head_truesize(headroom + linear) + -(-(length - linear) // PAGE_BYTES) * PAGE_BYTES


def datagram_truesize(headers: int, payload: int) -> int:
    """What a UDP or raw socket allocates for ``payload`` bytes behind IP (and UDP) headers."""
    if headers + payload + DATAGRAM_ROOM < DATAGRAM_LINEAR_MAX:
        return head_truesize(headers + payload + DATAGRAM_ROOM)
    return head_truesize(headers + DATAGRAM_ROOM) + payload


def unix_truesize(length: int) -> int:
    """What an AF_UNIX datagram counts against its sender's buffer: its head comes from the allocator's powers of two."""
    data = 0
    if length > DATAGRAM_LINEAR_MAX:
        data = -(-min(length - DATAGRAM_LINEAR_MAX, 17 * PAGE_BYTES) // PAGE_BYTES) * PAGE_BYTES
    size = -(-(length - data) // 64) * 64 + SHARED_INFO_BYTES
    return SK_BUFF_BYTES + max(1 << (size - 1).bit_length(), 512) + data
