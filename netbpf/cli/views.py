"""``netbpf views``: the packets of captures whose verdict depends on who looks, libpcap at the file or the kernel at a socket."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from netbpf.cli.program import ProgramChoice, add_program_arguments, chosen_program
from netbpf.cli.progress import Progress
from netbpf.errors import CaptureError, ProgramRejected, UsageError
from netbpf.program import FILE_VIEW, SOCKET_VIEW

if TYPE_CHECKING:
    from netbpf.packet.batch import PacketBatch
    from netbpf.packet.capture import CaptureReader
    from netbpf.program import ProgramSpec
    from netbpf.replay.views import Difference, TwoViews


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("captures", nargs="+", metavar="CAPTURE", help="pcap or pcapng, plain or gzip; - is stdin")
    parser.add_argument("-c", dest="count", type=int, metavar="N", help="stop after N packets")
    parser.add_argument("--json", action="store_true", help="one JSON object a packet, then one with the counts")
    add_program_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """List them; the exit code."""
    if args.view:
        raise UsageError("views compares both views: leave out --view")
    if args.count is not None and args.count < 1:
        raise UsageError(f"-c {args.count}: a count of packets is at least 1")
    listing = _Listing(args, chosen_program(args))
    for path in args.captures:
        try:
            listing.capture(path)
        except CaptureError as e:
            listing.errors.append(e)
        if listing.is_full:
            break
    listing.end()
    for error in listing.errors:
        print(f"netbpf: {error}", file=sys.stderr)
    return listing.errors[0].exit_code if listing.errors else 0


class _Listing:
    """What is printed, packet by packet."""

    def __init__(self, args: argparse.Namespace, choice: ProgramChoice) -> None:
        self.args, self.choice = args, choice
        self.packets = self.differing = 0
        self.errors: list[CaptureError] = []
        self._by_linktype: dict[int, TwoViews] = {}

    @property
    def is_full(self) -> bool:
        return self.args.count is not None and self.packets >= self.args.count

    def capture(self, path: str) -> None:
        from netbpf.packet.open import open_capture

        progress = Progress()
        with open_capture(path) as reader:
            try:
                for batch in reader.batches():
                    self._batch(path, batch, progress, reader)
                    if self.is_full:
                        return
            finally:
                progress.clear()

    def _batch(self, path: str, batch: PacketBatch, progress: Progress, reader: CaptureReader) -> None:
        from netbpf.replay.intervals import batch_slice

        if self.args.count is not None:
            batch = batch_slice(batch, 0, min(len(batch), self.args.count - self.packets))
        for difference in self._views(batch.linktype).differences(batch):
            progress.clear()
            self.differing += 1
            self._tell(path, difference)
        self.packets += len(batch)
        progress.update(self.packets, *reader.progress())

    def _views(self, linktype: int) -> TwoViews:
        if linktype not in self._by_linktype:
            from netbpf.replay.views import TwoViews

            self._by_linktype[linktype] = TwoViews(self._spec(FILE_VIEW, linktype), self._spec(SOCKET_VIEW, linktype))
        return self._by_linktype[linktype]

    def _spec(self, view: str, linktype: int) -> ProgramSpec:
        choice = self.choice
        try:
            return replace(choice, view=view, options=replace(choice.options, view=view)).spec(linktype)
        except ProgramRejected as e:
            who = "at a socket the kernel" if view == SOCKET_VIEW else "on a file libpcap"
            raise ProgramRejected(e.errno or 0, f"{who} refuses this filter: {e.log}") from None

    def _tell(self, path: str, difference: Difference) -> None:
        if self.args.json:
            print(json.dumps({"capture": path} | asdict(difference)))
            return
        where = f"{path}: " if len(self.args.captures) > 1 else ""
        print(f"{where}packet {difference.number}: file {difference.file}, socket {difference.socket}")
        if difference.at:
            print(f"    at {difference.at}")
        for reason in difference.reasons:
            print(f"    {reason}")

    def end(self) -> None:
        if self.args.json:
            print(json.dumps({"packets": self.packets, "differing": self.differing}))
        else:
            print(f"{self.differing} of {self.packets} packets depend on the view")
