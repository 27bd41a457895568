"""``netbpf attach``: a program on live packets, of a device that is there or of a TAP made for it."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from netbpf.cli.program import ProgramChoice, add_program_arguments, chosen_program
from netbpf.cli.signals import Signals
from netbpf.errors import BpfError, NetbpfError, ProgramRejected, UsageError
from netbpf.program import SOCKET_VIEW

if TYPE_CHECKING:
    from netbpf.cli.live_table import Display, Moment
    from netbpf.host.linux.named_netns import NamedNamespace
    from netbpf.packet.sink import CaptureWriter
    from netbpf.program import ProgramSpec
    from netbpf.replay.live import Source

ETHERNET: Final = 1
QUIET_S: Final = 0.5  # --feed ends after so long without a packet
STEP_S: Final = 0.1  # so soon a signal is heeded
CAPTURE_SUFFIXES: Final = (".pcap", ".pcapng")
EX_DIFFERENCE: Final = 1
EX_OSERR: Final = 71
DESCRIPTION: Final = """A program on live packets. Two ways of being attached:

listening (the default): a packet socket on IFACE is filtered. The program sees
what the socket would get, coming in and going out; nobody else's traffic
changes. On the native engine packets come from a ring (TPACKET_V3), a block at
a time; else from recv(), one by one.

in line (--in-line, with --tap): every frame that this machine sends out of the
TAP is read, and those that the program accepts are passed on to --forward,
trimmed as it says; the others are gone. The program sees each frame as if it
came in on a device.

Needs CAP_NET_RAW; --tap and --netns need CAP_NET_ADMIN; --backend kernel and
both need what bpf(2) needs. Whatever was made (device, namespace) is removed on
every way out."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.formatter_class = DESCRIPTION, argparse.RawDescriptionHelpFormatter
    parser.add_argument("iface", metavar="IFACE", help="the device: one that is there, or with --tap one to make")
    parser.add_argument("--tap", action="store_true", help="make a TAP of that name, bring it up, remove it at the end")
    parser.add_argument("--netns", default="", metavar="NS", help="in this namespace; with --tap it is made if it is not there")
    parser.add_argument("--in-line", action="store_true", help="filter frames that go out of the TAP, pass on what is accepted")
    parser.add_argument(
        "--forward",
        metavar="OUT",
        help="where accepted frames go in line: a capture file (.pcap, .pcapng), tap:NAME (a second TAP, made for it: "
        "they come in there), or a device to send them out of (a veth)",
    )
    parser.add_argument("--feed", metavar="CAPTURE", help="a capture's frames into the TAP, once everything is in place")
    parser.add_argument("--duration", type=float, metavar="S", help="stop after S seconds")
    parser.add_argument("--interval", type=float, default=1.0, metavar="S", help="seconds between two lines (default 1)")
    parser.add_argument("-c", dest="count", type=int, metavar="N", help="stop after N packets")
    parser.add_argument("-w", dest="write", metavar="OUT", help="write what was accepted, as trimmed (.pcapng: pcapng)")
    parser.add_argument("--json", action="store_true", help="one JSON object an interval, and one at the end (\"final\": true)")
    parser.add_argument("--quiet", "-q", action="store_true", help="nothing until the end")
    parser.add_argument(
        "--backend",
        choices=("sim", "kernel", "both"),
        default="sim",
        help="who judges: sim, our engine (default); kernel, the running one; both, and the first difference is told",
    )
    parser.add_argument("--engine", default=None, choices=("native", "interp"), help="native (default, with a ring) or interp")
    add_program_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Attach as the arguments say; the exit code."""
    _check(args)
    choice = chosen_program(args, filter_view=SOCKET_VIEW)
    if choice.view != SOCKET_VIEW:
        raise UsageError("--view file: live packets come to a socket")
    with Signals() as signals, ExitStack() as stack:
        return _Attach(args, choice, signals, stack).go()


def _check(args: argparse.Namespace) -> None:
    if args.count is not None and args.count < 1:
        raise UsageError(f"-c {args.count}: a count of packets is at least 1")
    if not args.interval >= 0.01:
        raise UsageError(f"--interval {args.interval}: at least 0.01 seconds")
    if args.duration is not None and not args.duration > 0:
        raise UsageError(f"--duration {args.duration}: more than 0 seconds")
    if args.in_line and not args.tap:
        raise UsageError("--in-line reads what goes out of a TAP: it needs --tap")
    if args.in_line and not args.forward and not args.write:
        raise UsageError("--in-line passes frames on: say where with --forward (a capture file, tap:NAME, a device) or -w")
    if args.forward and not args.in_line:
        raise UsageError("--forward belongs to --in-line; listening, -w keeps what is accepted")
    if args.feed and not args.tap:
        raise UsageError("--feed writes into a TAP: it needs --tap")


@dataclass
class _Attach:
    """One run of the command. ``made`` says what stands by the time something fails."""

    args: argparse.Namespace
    choice: ProgramChoice
    signals: Signals
    stack: ExitStack
    tap: Any = None
    output: CaptureWriter | None = None
    session: Any = None  # that compares or asks the kernel, where there is one
    feed: Callable[[], bool] = field(default=lambda: False)

    def go(self) -> int:
        from netbpf.cli.live_table import choose_display

        source = self._open()
        where = f"{self.args.iface} in {self.args.netns}" if self.args.netns else self.args.iface
        print(f"netbpf: {self.choice.name} on {where}: {source.what}", file=sys.stderr)
        title = f"{self.args.iface}: {self.choice.name}"
        display = choose_display(sys.stdout, title, as_json=self.args.json, quiet=self.args.quiet)
        return _Loop(self, source, display).go()

    # --- setting up -----------------------------------------------------------------------------------------------------
    def _open(self) -> Source:
        from netbpf.host.linux.named_netns import NamedNamespace

        args = self.args
        if not args.tap and not args.netns:
            _check_device(args.iface)
        with _explained(args):
            ns = self.stack.enter_context(NamedNamespace(args.netns, may_create=args.tap))
            if args.tap:
                self.tap = self._make_tap(ns, args.iface)
            elif args.netns:
                ns.run(_check_device, args.iface)
            spec = self._spec(ns)
            source = self._in_line(ns, spec) if args.in_line else self._listen(ns, spec)
            if args.feed:
                self.feed = self._feeder(ns)
        return source

    def _spec(self, ns: NamedNamespace) -> ProgramSpec:
        """The program; listening, an expression is compiled for this very device. In line every tag is moved out, too."""
        if self.choice.expression is None:
            return self.choice.spec()
        from netbpf.host.linux.live_expression import compile_for_device
        from netbpf.sources.cbpf import to_spec

        words, optimize = self.choice.expression, self.choice.optimize
        return to_spec(ns.run(lambda: compile_for_device(words, self.args.iface, optimize=optimize)), "filter")

    def _make_tap(self, ns: NamedNamespace, name: str) -> Any:
        import socket

        from netbpf.host.linux.devices import Tap

        if name in ns.run(lambda: [n for _, n in socket.if_nameindex()]):
            raise BpfError(errno.EEXIST, f"EEXIST: there is a device {name!r} already: leave out --tap to listen on it")
        tap = ns.run(lambda: Tap(name, by_netlink=True))
        self.stack.callback(tap.close)
        return tap

    def _linktype(self, ns: NamedNamespace) -> int:
        from netbpf.host.linux.devices import hardware_type
        from netbpf.replay.live import linktype_of_device

        return linktype_of_device(ns.run(hardware_type, self.args.iface))

    def _write_to(self, linktype: int) -> CaptureWriter | None:
        if self.args.write is None:
            return None
        from netbpf.packet.open import create_capture

        return self.stack.enter_context(create_capture(self.args.write, linktype))

    def _listen(self, ns: NamedNamespace, spec: ProgramSpec) -> Source:
        from netbpf.host.attached import attach
        from netbpf.replay.live import SocketSource, open_socket

        args, linktype = self.args, self._linktype(ns)
        self.output = self._write_to(linktype)
        if args.backend == "sim" and (linktype == ETHERNET or self.output is None):
            source = self._ring(ns, spec)
            if source is not None:
                return source
        sock = open_socket(ns.run, args.iface)
        self.stack.callback(sock.close)
        attached = ns.run(lambda: attach(sock, spec, backend=args.backend, engine=args.engine))
        self.stack.callback(attached.close)
        self.session = attached if args.backend == "both" else None
        ours = f"engine {args.engine or 'interp'}"
        judge = {"sim": ours, "kernel": "the program in the kernel", "both": f"{ours} and the program in the kernel"}
        return SocketSource(attached, judge[args.backend], self.output, linktype)

    def _ring(self, ns: NamedNamespace, spec: ProgramSpec) -> Source | None:
        """None where no native code runs."""
        from netbpf.engine.choose import stream_engine
        from netbpf.host.linux.packet_ring import arrival_env
        from netbpf.host.live_program import LiveProgram
        from netbpf.replay.live import open_ring

        engine = stream_engine(self.args.engine)
        if engine.name != "native":
            return None
        live = LiveProgram(spec, engine, arrival_env())
        return open_ring(self.stack, ns.run, self.args.iface, live, self.output)

    # --- in line ----------------------------------------------------------------------------------------------------------
    def _in_line(self, ns: NamedNamespace, spec: ProgramSpec) -> Source:
        from netbpf.replay.live import InlineSource, forward_all, to_capture

        ways = [self._forward_to(ns)] if self.args.forward else []
        self.output = self._write_to(1)
        if self.output is not None:
            ways.append(to_capture(self.output))
        loaded, maps, judge = self._judge(spec)
        return InlineSource(self.tap, loaded, maps, forward_all(*ways), judge)

    def _judge(self, spec: ProgramSpec) -> tuple[Any, Any, str]:
        """Who judges frames in line; the kernel does it in a laboratory of its own, frame by frame."""
        from netbpf.env import SystemEnv
        from netbpf.packet.device import Device

        if self.args.backend != "sim":
            from netbpf.replay.lab_session import LabSession

            session = LabSession(spec, self.args.backend, engine=self.args.engine)
            self.session = self.stack.enter_context(session)
            return session.loaded, session.maps, f"judged by {session.engine_name} in a TAP of their own"
        from netbpf.engine.choose import stream_engine
        from netbpf.host.live_program import LiveProgram

        engine = stream_engine(self.args.engine)
        live = LiveProgram(spec, engine, SystemEnv())
        loaded: Any = live.loaded
        loaded.device = Device(mac=self.tap.mac, ifindex=self.tap.ifindex)
        return loaded, live.maps, f"engine {engine.name}"

    def _forward_to(self, ns: NamedNamespace) -> Callable[[Any], None]:
        from netbpf.packet.open import create_capture
        from netbpf.replay.live import to_capture, to_device, to_socket

        out = str(self.args.forward)
        if out.startswith("tap:"):
            return to_device(self._make_tap(ns, out.removeprefix("tap:")))
        if out.endswith(CAPTURE_SUFFIXES) or "/" in out:
            return to_capture(self.stack.enter_context(create_capture(out, 1)))
        sock = ns.run(_sender, out)
        self.stack.callback(sock.close)
        return to_socket(sock)

    def _feeder(self, ns: NamedNamespace) -> Callable[[], bool]:
        """Each call puts some frames of the capture into the TAP; False once all are in."""
        from netbpf.packet.open import open_capture
        from netbpf.replay.feed import Feeder

        reader = self.stack.enter_context(open_capture(self.args.feed))
        sender = None
        if self.args.in_line:
            sender = ns.run(_sender, self.args.iface)
            self.stack.callback(sender.close)
        return Feeder(reader, self.tap, sender).step


@dataclass
class _Loop:
    """From the first packet to the last line."""

    command: _Attach
    source: Source
    display: Display
    gone: str = ""
    feeding: bool = True
    last_count: int = -1
    busy_at: float = 0.0

    def go(self) -> int:
        args, started = self.command.args, time.monotonic()
        end = None if args.duration is None else started + args.duration
        tick = started + args.interval
        try:
            while not self._done(end):
                now = time.monotonic()
                self._feed(now)
                until = [STEP_S, tick - now, *([] if end is None else [end - now])]
                self.source.step(0.0 if self.feeding else max(0.0, min(until)), self._left())
                if time.monotonic() >= tick:
                    self.display.show(self._moment(time.monotonic() - started))
                    tick += args.interval * max(1, (time.monotonic() - tick) // args.interval)
            if self._left() != 0:
                self.source.last(self._left())
        except OSError as e:
            self._judge_error(e)
        return self._finish(time.monotonic() - started)

    def _feed(self, now: float) -> None:
        """Put frames in; note when something last happened."""
        if self.feeding:
            self.feeding = self.command.feed()
        stats = self.source.stats
        count = (stats.packets or 0) + (stats.accepted or 0) + (stats.kernel_drops or 0)
        if self.feeding or count != self.last_count:
            self.last_count, self.busy_at = count, now

    def _done(self, end: float | None) -> bool:
        """Over by a signal, by the clock, by the count, or because all that was fed is worked off."""
        now, left = time.monotonic(), self._left()
        if self.command.signals.caught is not None or (left is not None and left <= 0):
            return True
        if end is not None:
            return now >= end
        return self.command.args.feed is not None and not self.feeding and now - self.busy_at > QUIET_S

    def _left(self) -> int | None:
        count = self.command.args.count
        if count is None:
            return None
        stats = self.source.stats
        return int(count - ((stats.packets if stats.packets is not None else stats.accepted) or 0))

    def _moment(self, seconds: float) -> Moment:
        from netbpf.cli.live_table import Moment

        return Moment(seconds, self.source.stats, self.source.maps, getattr(self.source, "not_forwarded", 0))

    def _judge_error(self, e: OSError) -> None:
        from netbpf.replay.live import GONE

        if isinstance(e, NetbpfError) or e.errno not in GONE:
            raise e
        self.gone = f"{self.command.args.iface} went away or down ({e.strerror}): what is told above was counted until then"

    # --- the end ----------------------------------------------------------------------------------------------------------
    def _finish(self, seconds: float) -> int:
        self.display.close()
        moment = self._moment(seconds)
        found = self._difference()
        for note in self._notes():
            print(f"netbpf: {note}", file=sys.stderr)
        if self.command.args.json:
            self._finish_json(moment, found)
        else:
            self._finish_text(moment, found)
        if self.gone:
            print(f"netbpf: {self.gone}", file=sys.stderr)
            return EX_OSERR
        if self.command.signals.caught is not None:
            return self.command.signals.exit_code
        return EX_DIFFERENCE if found is not None else 0

    def _difference(self) -> Any:
        session = self.command.session
        if session is None or self.command.args.backend != "both":
            return None
        return session.finish() if self.command.args.in_line else session.compare_maps()

    def _notes(self) -> list[str]:
        """What a reader of the counts must know."""
        session, args = self.command.session, self.command.args
        if session is None:
            return []
        if args.in_line:
            return list(session.notes())
        lost = session.not_compared
        return [f"{lost} packets were not compared: a full buffer lost them on one side"] if lost else []

    def _finish_json(self, moment: Moment, found: Any) -> None:
        from netbpf.cli.live_table import Moment, json_moment
        from netbpf.host.filter_stats import FilterStats

        told = json_moment(moment, Moment(0.0, FilterStats())) | {"final": True, "backend": self.command.args.backend}
        if self.command.args.backend == "both":
            told["difference"] = None if found is None else str(found)
        print(json.dumps(told), flush=True)

    def _finish_text(self, moment: Moment, found: Any) -> None:
        from netbpf.cli.live_table import Moment, plain_line
        from netbpf.host.filter_stats import FilterStats
        from netbpf.maps.dump import dump

        print(plain_line(moment, Moment(0.0, FilterStats())))
        for name, live in moment.maps.items():
            print(f"\nmap {name}:\n{dump(live, 'plain')}", end="")
        if self.command.args.backend == "both":
            print(f"netbpf: {found}" if found else "simulator and kernel agree: every packet and every map entry", flush=True)


def _check_device(name: str) -> None:
    import socket

    try:
        socket.if_nametoindex(name)
    except OSError:
        there = ", ".join(n for _, n in socket.if_nameindex())
        raise BpfError(errno.ENODEV, f"ENODEV: there is no device {name!r} here (there are: {there}); --tap makes one") from None


def _sender(name: str) -> Any:
    """A packet socket that only sends out of a device."""
    import socket

    _check_device(name)
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind((name, 0))
    sock.setblocking(False)
    return sock


@contextmanager
def _explained(args: argparse.Namespace) -> Iterator[None]:
    """Errors of setting up, with what to do about them."""
    try:
        yield
    except ProgramRejected:
        raise
    except OSError as e:
        if e.errno in (errno.EPERM, errno.EACCES):
            needed = "CAP_NET_ADMIN and CAP_NET_RAW" if args.tap or args.netns else "CAP_NET_RAW"
            needed += ", and CAP_BPF or root" if args.backend != "sim" else ""
            raise BpfError(errno.EPERM, f"EPERM: {args.iface}: this needs {needed} (run it as root)") from None
        if isinstance(e, NetbpfError) or e.filename is not None:
            raise
        raise BpfError(e.errno or errno.EIO, f"{args.iface}: {os.strerror(e.errno or errno.EIO)}") from None
