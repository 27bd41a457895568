"""Fragments of IP packets until they are whole, as inet_frag_queue keeps them. Knows headers, not sockets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from netbpf.host.sim.device import Arrival
from netbpf.host.sim.timers import NS, Timer, Timers
from netbpf.packet.inet import IP_DF, IP_MAX_BYTES, IP_MF, IP_OFFSET_MASK, IPV6_HLEN, seal_ipv4
from netbpf.packet.skbuff import SkBuff

IPV4_TIMEOUT_NS: Final = 30 * NS
IPV6_TIMEOUT_NS: Final = 60 * NS
Key = tuple[object, ...]
Whole = tuple[SkBuff, Arrival]


@dataclass(slots=True)
class Piece:
    """A fragment: where its data belongs, the data, the packet it came in."""

    at: int
    data: bytes
    skb: SkBuff
    arrival: Arrival

    @property
    def end(self) -> int:
        return self.at + len(self.data)


@dataclass(slots=True)
class Queue:
    """The pieces of one packet by offset, its length once its last piece was seen, and the largest one seen with DF."""

    timer: Timer
    pieces: list[Piece] = field(default_factory=list)
    length: int | None = None
    max_size: int = 0
    max_df_size: int = 0

    def add(self, piece: Piece, more: bool) -> bool:
        """False where it contradicts the others: then none of them is used. One that is there already changes nothing."""
        if not more:
            if self.length not in (None, piece.end) or any(p.end > piece.end for p in self.pieces):
                return False
            self.length = piece.end
        elif self.length is not None and piece.end > self.length:
            return False
        for other in self.pieces:
            if piece.at < other.end and other.at < piece.end:
                return other.at <= piece.at and piece.end <= other.end
        self.pieces.append(piece)
        self.pieces.sort(key=lambda p: p.at)
        return True

    def is_whole(self) -> bool:
        return self.length is not None and sum(len(p.data) for p in self.pieces) == self.length

    def arrival(self, last: Arrival) -> Arrival:
        """The whole was seen where the last piece came in. A piece that fits behind what is in the first one's head is copied
        there and counts nothing; once one does not fit, it and all behind it count what they did."""
        first = self.pieces[0]
        size, room = first.arrival.truesize, first.arrival.tail_room(len(first.skb.head))
        for piece in self.pieces[1:]:
            room = room - len(piece.data) if len(piece.data) <= room else -1
            size += piece.arrival.truesize if room < 0 else 0
        return replace(last, truesize=size, partial=False)


class Reassembler:
    """What waits for its other fragments in one network namespace."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._queues: dict[Key, Queue] = {}

    def add_ipv4(self, skb: SkBuff, arrival: Arrival, hlen: int) -> Whole | None:
        """The whole packet once this fragment completes it. The header is checked and ``skb`` cut to the packet's length."""
        at, head = skb.network_header, skb.head
        word = int.from_bytes(head[at + 6 : at + 8])
        more, data = bool(word & IP_MF), head[at + hlen :]
        if more:
            data = data[: len(data) & ~7]
        key = (4, head[at + 12 : at + 20], head[at + 4 : at + 6], head[at + 9])
        piece = Piece((word & IP_OFFSET_MASK) * 8, data, skb, arrival)
        queue = self._add(key, piece, more, IPV4_TIMEOUT_NS)
        if queue is None:
            return None
        size = len(head) - at
        queue.max_size = max(queue.max_size, size)
        if word & IP_DF:
            queue.max_df_size = max(queue.max_df_size, size)
        return self._take(key, queue, arrival, _whole_ipv4)

    def add_ipv6(self, skb: SkBuff, arrival: Arrival, at: int, next_at: int) -> Whole | None:
        """As ``add_ipv4``: the fragment header lies at ``at`` of the head, and byte ``next_at`` names it."""
        head = skb.head
        word = int.from_bytes(head[at + 2 : at + 4])
        more, data = bool(word & 1), head[at + 8 :]
        if not data or (more and len(data) & 7):
            return None
        network = skb.network_header
        key = (6, head[network + 8 : network + 40], head[at + 4 : at + 8])
        queue = self._add(key, Piece(word & 0xFFF8, data, skb, arrival), more, IPV6_TIMEOUT_NS)
        return None if queue is None else self._take(key, queue, arrival, lambda q: _whole_ipv6(q, at, next_at))

    def _add(self, key: Key, piece: Piece, more: bool, timeout_ns: int) -> Queue | None:
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = Queue(self._timers.after(timeout_ns, lambda: self._drop(key)))
        if piece.end > IP_MAX_BYTES or not queue.add(piece, more):
            self._drop(key)
            return None
        return queue

    def _drop(self, key: Key) -> None:
        queue = self._queues.pop(key, None)
        if queue is not None:
            queue.timer.cancel()

    def _take(self, key: Key, queue: Queue, last: Arrival, join: Callable[[Queue], SkBuff | None]) -> Whole | None:
        if not queue.is_whole():
            return None
        self._drop(key)
        skb = join(queue)
        return None if skb is None else (skb, queue.arrival(last))


def _data(queue: Queue) -> bytes:
    return b"".join(p.data for p in queue.pieces)


def _whole_ipv4(queue: Queue) -> SkBuff | None:
    """The first fragment's header over all data. DF stays where the largest fragment had it."""
    first, data = queue.pieces[0].skb, _data(queue)
    at = first.network_header
    hlen = (first.head[at] & 15) * 4
    if hlen + len(data) > IP_MAX_BYTES:
        return None
    word = IP_DF if queue.max_df_size == queue.max_size else 0
    header = first.head[at : at + 2] + (hlen + len(data)).to_bytes(2) + first.head[at + 4 : at + 6] + word.to_bytes(2)
    packet = seal_ipv4(header + first.head[at + 8 : at + hlen] + data)
    return _with_packet(first, packet)


def _whole_ipv6(queue: Queue, at: int, next_at: int) -> SkBuff | None:
    """The first fragment's headers but for the fragment header, over all data."""
    first, data = queue.pieces[0].skb, _data(queue)
    network = first.network_header
    headers = bytearray(first.head[network:at])
    headers[next_at - network] = first.head[at]
    length = len(headers) - IPV6_HLEN + len(data)
    if length > IP_MAX_BYTES:
        return None
    headers[4:6] = length.to_bytes(2)
    return _with_packet(first, bytes(headers) + data)


def _with_packet(first: SkBuff, packet: bytes) -> SkBuff:
    head = first.head[: first.network_header] + packet
    return replace(first, head=head, len=len(head) - first.data_off)
