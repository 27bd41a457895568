"""One TCP connection: its states, what it sends, what it takes in (RFC 9293). As much as a filter's user needs: the handshake,
data in order, retransmission when a filter drops or cuts a segment, windows, the close in all its forms.

No congestion control, no delayed acknowledgement, no selective ones: every segment with data is acknowledged when it comes in.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from netbpf.abi.net import IPPROTO_TCP
from netbpf.host.sim.device import Sent
from netbpf.host.sim.ip_stack import IpStack, Path
from netbpf.host.sim.tcp_options import (
    ACK,
    DEFAULT_MSS,
    FIN,
    PSH,
    RST,
    SYN,
    Options,
    build_options,
    is_before,
    parse_options,
    seq_add,
    seq_diff,
)
from netbpf.host.sim.timers import Timer
from netbpf.host.sim.truesize import head_truesize
from netbpf.packet.inet import IP_MAX_BYTES, Tcp, build_ipv4, build_ipv6, build_tcp

if TYPE_CHECKING:
    from netbpf.host.sim.tcp_socket import TcpSocket

ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING = range(1, 12)
SENDING: Final = frozenset({ESTABLISHED, CLOSE_WAIT, FIN_WAIT1, CLOSING, LAST_ACK})
TAKING: Final = frozenset({ESTABLISHED, FIN_WAIT1, FIN_WAIT2})
MS: Final = 1_000_000
SYN_TIMEOUT_NS: Final = 1000 * MS
RTO_NS: Final = 200 * MS
TIME_WAIT_NS: Final = 60_000 * MS
SYN_RETRIES: Final = 6
RETRIES: Final = 15
WSCALE: Final = 10
TS_BYTES: Final = 12
MAX_WINDOW: Final = 65535
Key = tuple[bytes, int, bytes, int]  # local address and port, peer's


class Connection:
    """``sock`` is the socket that reads and writes it, None before it is accepted and after it is closed. ``inbox`` is what
    came in and was not read, ``out`` what was written and not acknowledged, from ``snd_una`` on."""

    def __init__(self, ip: IpStack, key: Key, path: Path, sock: TcpSocket | None, listener: TcpSocket | None = None) -> None:
        self.ip, self.key, self.path, self.sock, self.listener = ip, key, path, sock, listener
        owner = sock or listener
        assert owner is not None
        self.mark, self.priority, self.window_room = owner.mark, owner.priority, owner.rcvbuf // 2
        random = ip.network.timers.env.random_u32
        self.state = CLOSE
        self.snd_una = self.snd_nxt = self.iss = random()
        self.rcv_nxt = self.told_window = 0
        self.snd_wnd = self.max_wnd = self.wscale = 0
        self.out, self.inbox = bytearray(), bytearray()
        self.later: dict[int, bytes] = {}  # segments beyond a gap
        self.fin_at: int | None = None  # where a FIN beyond a gap stands
        self.fin_wanted = self.fin_sent = self.at_end = self.scaled = self.stamped = self.sack_ok = False
        self.mss = self.own_mss = min(path.device.mtu, IP_MAX_BYTES) - 40 if len(key[0]) == 4 else path.device.mtu - 60
        self.ts_offset, self.ts_recent, self.ident, self.hash = random(), 0, random(), random() | 1
        self.retries, self.recover = 0, self.iss
        self.timer: Timer | None = None
        self.orphan: TcpSocket | None = None  # what was closed and whose filter still counts
        self._busy = self._resend = False

    # --- out --------------------------------------------------------------------------------------------------------------
    def open(self) -> None:
        """Send the SYN."""
        self.state, self.snd_nxt = SYN_SENT, seq_add(self.iss, 1)
        self._syn()
        self._arm()

    def _syn(self) -> None:
        mine = Options(self.own_mss, WSCALE, True, (self._now(), 0))
        self._emit(SYN, seq=self.iss, options=mine)

    def _syn_ack(self) -> None:
        stamp = (self._now(), self.ts_recent) if self.stamped else None
        mine = Options(self.own_mss, WSCALE if self.scaled else None, self.sack_ok, stamp)
        self._emit(SYN | ACK, seq=self.iss, options=mine, ident=0)

    def _now(self) -> int:
        return (self.ip.network.timers.env.ktime_ns() // MS + self.ts_offset) & 0xFFFF_FFFF

    def room(self) -> int:
        """Bytes it would still take in."""
        return max(self.window_room - len(self.inbox), 0)

    def _window(self, flags: int) -> int:
        """The field's value. It is not scaled in a SYN."""
        self.told_window = self.room()
        if flags & SYN:  # whole segments only
            size = self.own_mss - (TS_BYTES if flags & ACK and self.stamped else 0)
            return min(self.room() // size * size if self.room() > size else self.room(), MAX_WINDOW)
        return min(self.told_window >> (WSCALE if self.scaled else 0), MAX_WINDOW)

    def _emit(
        self, flags: int, data: bytes = b"", *, seq: int | None = None, options: Options | None = None, ident: int | None = None
    ) -> None:  # fmt: skip
        if options is None:
            options = Options(timestamp=(self._now(), self.ts_recent)) if self.stamped else Options()
        local, port, peer, peer_port = self.key
        ack = self.rcv_nxt if flags & ACK else 0
        segment = Tcp(
            port, peer_port, self.snd_nxt if seq is None else seq, ack, flags, self._window(flags), build_options(options), data
        )
        if ident is None:
            self.ident = ident = self.ident + 1 & 0xFFFF
        send_segment(
            self.ip, self.path, local, peer, segment, ident=ident, mark=self.mark, priority=self.priority, hash=self.hash
        )

    def acknowledge(self) -> None:
        self._emit(ACK)

    def _refuse(self, segment: Tcp) -> None:
        """RST as one who knows of no connection answers."""
        local, port, peer, peer_port = self.key
        answer = Tcp(port, peer_port, segment.ack, 0, RST, 0)
        send_segment(self.ip, self.path, local, peer, answer, hash=self.hash, gso_segs=0)

    def write(self, data: bytes) -> None:
        self.out += data
        self.output()

    def finish(self) -> None:
        """No more will be written: FIN behind what is."""
        self.fin_wanted = True
        self.output()

    def abort(self) -> None:
        """RST, and nothing is left of it."""
        if self.state not in (CLOSE, TIME_WAIT, SYN_SENT):
            self._emit(RST | ACK)
        self.done(0)

    def output(self) -> None:
        """Send what window and state allow. What comes back meanwhile does not send by itself."""
        if self._busy:
            return
        self._busy = True
        try:
            while self._send_next():
                pass
        finally:
            self._busy = False
        self._arm()

    def _send_next(self) -> bool:
        if self.state not in SENDING:
            return False
        if self._resend:
            self._resend = False
            self._retransmit()
            return True
        if self.fin_sent:
            return False
        flight = seq_diff(self.snd_nxt, self.snd_una)
        left = len(self.out) - flight
        size = min(left, self._segment_max(), self.snd_wnd - flight)
        if size > 0:
            data = bytes(self.out[flight : flight + size])
            seq, self.snd_nxt = self.snd_nxt, seq_add(self.snd_nxt, size)
            self._emit(ACK | (PSH if size == left else 0), data, seq=seq)
            return True
        if left or not self.fin_wanted:
            return False
        seq, self.snd_nxt, self.fin_sent = self.snd_nxt, seq_add(self.snd_nxt, 1), True
        self.state = FIN_WAIT1 if self.state == ESTABLISHED else LAST_ACK
        self._emit(FIN | ACK, seq=seq)
        return False

    def _segment_max(self) -> int:
        """No more than half of the largest window the peer ever offered."""
        size = self.mss - (TS_BYTES if self.stamped else 0)
        return max(min(size, self.max_wnd >> 1 if self.max_wnd > DEFAULT_MSS else self.max_wnd), 1)

    # --- timers -----------------------------------------------------------------------------------------------------------
    def _arm(self) -> None:
        """The retransmission timer runs while something is not acknowledged, or waits for a window."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.state in (CLOSE, TIME_WAIT) or not (seq_diff(self.snd_nxt, self.snd_una) or self.out):
            return
        first = SYN_TIMEOUT_NS if self.state in (SYN_SENT, SYN_RECV) else RTO_NS
        self.timer = self.ip.network.timers.after(first << self.retries, self._expired)

    def _expired(self) -> None:
        self.timer = None
        self.retries += 1
        handshake = self.state in (SYN_SENT, SYN_RECV)
        if self.retries > (SYN_RETRIES if handshake else RETRIES):
            self.done(errno.ETIMEDOUT)
        elif self.state == SYN_SENT:
            self._syn()
            self._arm()
        elif self.state == SYN_RECV:
            self._syn_ack()
            self._arm()
        else:
            self.recover = self.snd_nxt
            self._resend = True
            self.output()

    def _retransmit(self) -> None:
        """The first segment that is not acknowledged; with nothing under way, a probe of the closed window."""
        flight = min(seq_diff(self.snd_nxt, self.snd_una), len(self.out))
        data = bytes(self.out[: min(flight, self._segment_max())])
        if not data and not self.fin_sent:
            self._emit(ACK, seq=seq_add(self.snd_una, -1))
            return
        with_fin = self.fin_sent and len(data) == len(self.out)
        self._emit(ACK | (FIN if with_fin else PSH), data, seq=self.snd_una)

    # --- in ---------------------------------------------------------------------------------------------------------------
    def take_syn(self, segment: Tcp) -> None:
        """The first segment of a peer, at a listener."""
        self._learn(segment)
        self.state, self.snd_nxt = SYN_RECV, seq_add(self.iss, 1)
        self.snd_wnd = self.max_wnd = segment.window
        self._syn_ack()
        self._arm()

    def _learn(self, segment: Tcp) -> None:
        """What the peer's SYN says of him."""
        his = parse_options(segment.options)
        self.rcv_nxt = seq_add(segment.seq, 1)
        self.mss = min(self.own_mss, his.mss or DEFAULT_MSS)
        self.scaled, self.wscale, self.sack_ok = his.wscale is not None, his.wscale or 0, his.sack_ok
        self.stamped = his.timestamp is not None
        self.ts_recent = his.timestamp[0] if his.timestamp else 0

    def receive(self, segment: Tcp) -> None:
        if self.state == SYN_SENT:
            self._in_syn_sent(segment)
        elif self.state == SYN_RECV:
            self._in_syn_recv(segment)
        else:
            self._in_order(segment)

    def _in_syn_sent(self, segment: Tcp) -> None:
        if segment.flags & ACK and segment.ack != self.snd_nxt:
            if not segment.flags & RST:
                self._refuse(segment)
            return
        if segment.flags & RST:
            if segment.flags & ACK:
                self.done(errno.ECONNREFUSED)
            return
        if segment.flags & (SYN | ACK) != SYN | ACK:
            return
        self._learn(segment)
        self.snd_una, self.state, self.retries = segment.ack, ESTABLISHED, 0
        self.snd_wnd = self.max_wnd = segment.window
        self.acknowledge()
        self._arm()
        self._tell()

    def _in_syn_recv(self, segment: Tcp) -> None:
        if segment.flags & RST:
            if segment.seq == self.rcv_nxt:
                self.done(0)
            return
        if segment.flags & SYN:
            self._syn_ack()
            return
        if not segment.flags & ACK or segment.ack != self.snd_nxt or self.listener is None:
            return
        if not self.listener.take_child(self):
            return
        self.snd_una, self.state, self.retries, self.listener = segment.ack, ESTABLISHED, 0, None
        self._in_order(segment)

    def _in_order(self, segment: Tcp) -> None:
        """tcp_rcv_established and tcp_rcv_state_process."""
        length = len(segment.data) + bool(segment.flags & FIN)
        if not self._is_acceptable(segment.seq, length):
            if not segment.flags & RST:
                self.acknowledge()
            return
        if segment.flags & RST:
            if segment.seq == self.rcv_nxt:
                self.done(errno.ECONNRESET if self.state != CLOSE_WAIT else errno.EPIPE)
            return
        if segment.flags & SYN or not segment.flags & ACK:
            if segment.flags & SYN:
                self.acknowledge()
            return
        stamp = parse_options(segment.options).timestamp
        if stamp is not None and self.stamped and not is_before(self.rcv_nxt, segment.seq):
            self.ts_recent = stamp[0]
        self._acked(segment)
        if self.state == CLOSE:
            return
        if length:
            self._take(segment)
        self.output()

    def _is_acceptable(self, seq: int, length: int) -> bool:
        """Whether any of it lies in the window."""
        end = seq_add(seq, length)
        return not is_before(end, self.rcv_nxt) and not is_before(seq_add(self.rcv_nxt, self.room()), seq)

    def _acked(self, segment: Tcp) -> None:
        if is_before(self.snd_nxt, segment.ack):
            self.acknowledge()
            return
        if is_before(self.snd_una, segment.ack):
            del self.out[: seq_diff(segment.ack, self.snd_una)]
            self.snd_una, self.retries = segment.ack, 0
            if is_before(segment.ack, self.recover):
                self._resend = True
            self._tell()
        if not is_before(segment.ack, self.snd_una):
            self.snd_wnd = segment.window << (self.wscale if self.scaled else 0)
            self.max_wnd = max(self.max_wnd, self.snd_wnd)
        if self.fin_sent and segment.ack == self.snd_nxt:
            self._fin_acked()

    def _fin_acked(self) -> None:
        if self.state == FIN_WAIT1:
            self.state = FIN_WAIT2
            self.let_go()
        elif self.state == CLOSING:
            self._time_wait()
        elif self.state == LAST_ACK:
            self.done(0)

    def _take(self, segment: Tcp) -> None:
        """Data and FIN: what is next goes to the reader, what is beyond a gap waits for it. All of it is acknowledged."""
        if segment.data and self.sock is None and self.state in (FIN_WAIT1, FIN_WAIT2):
            self._refuse(segment)  # nobody will read it
            self.done(0)
            return
        if self.state in TAKING:
            if segment.data:
                self.later[segment.seq] = max(segment.data, self.later.get(segment.seq, b""), key=len)
            if segment.flags & FIN:
                self.fin_at = seq_add(segment.seq, len(segment.data))
            self._close_gap()
        self.acknowledge()
        if self.at_end and self.state in (ESTABLISHED, FIN_WAIT1, FIN_WAIT2):
            self._peer_is_done()
        self._tell()

    def _close_gap(self) -> None:
        moved = True
        while moved:
            moved = False
            for seq in list(self.later):
                skip = seq_diff(self.rcv_nxt, seq)
                if skip >= 0:
                    fresh = self.later.pop(seq)[skip:][: self.room()]
                    self.inbox += fresh
                    self.rcv_nxt = seq_add(self.rcv_nxt, len(fresh))
                    moved = moved or bool(fresh)
        if self.fin_at == self.rcv_nxt and not self.at_end:
            self.rcv_nxt, self.at_end = seq_add(self.rcv_nxt, 1), True

    def _peer_is_done(self) -> None:
        if self.state == ESTABLISHED:
            self.state = CLOSE_WAIT
        elif self.state == FIN_WAIT1:
            self.state = CLOSING
        else:
            self._time_wait()

    def read(self, size: int, *, peek: bool) -> bytes:
        """Bytes from the front; room made is told to a peer who waits for it."""
        data = bytes(self.inbox[:size])
        if not peek:
            del self.inbox[: len(data)]
            if self.told_window < self.own_mss <= self.room() and self.state in TAKING:
                self.acknowledge()
        return data

    # --- the end ----------------------------------------------------------------------------------------------------------
    def _time_wait(self) -> None:
        self.state = TIME_WAIT
        self._arm()
        self.let_go()
        self.ip.network.timers.after(TIME_WAIT_NS, lambda: self.done(0))

    def done(self, error: int) -> None:
        """The connection is no more; ``error`` is what its socket is told."""
        self.state = CLOSE
        self.let_go()
        self.out.clear()
        self._arm()
        self.ip.tcp.forget(self)
        if self.sock is not None:
            self.sock.error = error or self.sock.error
            self.at_end = True
        self._tell()

    def let_go(self) -> None:
        """The closed socket's filter, which was kept while the peer had something to say."""
        if self.orphan is not None:
            self.orphan.filter.release()
            self.orphan = None

    def _tell(self) -> None:
        """Whoever waits looks again."""
        self.ip.network.changed.notify_all()


def send_segment(
    ip: IpStack, path: Path, source: bytes, target: bytes, segment: Tcp, *, ident: int = 0, mark: int = 0, priority: int = 0,
    hash: int = 0, gso_segs: int = 1,
) -> None:  # fmt: skip
    """A segment out, its checksum left to the devices that take that."""
    partial = path.local or path.device.peer is not None
    raw = build_tcp(source, target, segment, check="partial" if partial else "full")
    if len(source) == 4:
        packet = build_ipv4(source, target, IPPROTO_TCP, raw, ident=ident)
    else:
        packet = build_ipv6(source, target, IPPROTO_TCP, raw, flow=hash & 0xFFFFF)
    size = head_truesize(min(len(raw), 512)) + max(len(raw) - 512, 0)
    ip.send(packet, path, Sent(mark, priority, hash, gso_segs, partial, path.local, size))
