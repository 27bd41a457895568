"""The two structures that native code and Python share: Args (one run) and Meta (one packet's context). Offsets only.

All fields are 8 bytes unless said, native byte order. ``Args`` is written by Python before a run and holds the totals after
it; ``Meta`` holds what the program may read of the sk_buff beside its bytes.
"""

from __future__ import annotations

from typing import Final


def _layout(names: str) -> dict[str, int]:
    return {name: 8 * i for i, name in enumerate(names.split())}


# buf: address of the window; pos, end: where in it (bytes of a capture, or indexes of columns) the run begins, and after it
# where it stopped; stop_ns: stop before the first packet at or after this time, next_ns: that packet's time, ran_ns: that of the
# last one that ran; max_packets: stop after so many. *_col: addresses of columns (results: 0 where not wanted).
# snaplen, max_caplen, ts_scale, layouts: of the records, see packet.capture.RecordLayout.
# out, out_size: room for a written capture, of which out_used bytes in out_packets records are filled; out_interface: the
# table's row that the record at out_mark is the first of. scratch: room for one frame. device_mac: little-endian in the low 48
# bits, all ones for any. meta: of the packet at hand, at first the defaults. maps: address of the table of map base addresses.
# r1..r5: of a call back into Python; fault: 1 when it failed and the run must end, culprit: address of the Args of the program
# that failed. tail_calls: how many found a program for this packet; targets: address of the table of programs that they found
# (``targets``), target_mask: its rows less one; frame: the stack that a program reached by one goes on with, of which the upper
# frame_bytes are cleared or written. subprog: which one @enter runs. skb_*: the packet of a call back, or of the variants "one"
# and "tail".
# shard, shards: run the packets whose flow modulo shards is shard, pass over the rest, in number skipped; link, typed: of
# the link header, as kernels.flow takes them.
# handles: address of the table of what registers hold that name a map. The rest serves ``checks``.
ARGS: Final = _layout(
    "buf pos end stop_ns max_packets "
    "packets bytes accepted trimmed last_ns next_ns ran_ns status "
    "verdict_col kept_col trimmed_col offset_col caplen_col wirelen_col ts_col direction_col interface_col "
    "snaplen max_caplen ts_scale layouts n_layouts first_interface "
    "out out_size out_used out_packets out_interface out_mark "
    "scratch meta maps device_mac ifindex now_ns rng_state cpu_id "
    "callback fault culprit tail_calls targets target_mask frame frame_bytes subprog r1 r2 r3 r4 r5 skb_pkt skb_len skb_cap "
    "handles regions n_regions depth budget call_pc fault_kind fault_pc fault_address fault_size fault_access "
    "shard shards link typed skipped"
)
SPARE_AT: Final = 8 * len(ARGS)  # behind the fields, bytes that code may write to and nobody looks at (``tally``)
SPARE_BYTES: Final = 256
ARGS_BYTES: Final = SPARE_AT + SPARE_BYTES

# why a run stopped
STATUS_END, STATUS_TICK, STATUS_COUNT, STATUS_RECORD, STATUS_FAULT, STATUS_ROOM, STATUS_INTERFACE, STATUS_STRANGE = range(8)

# one u64 per scalar of the context; arrays of u32 (cb, the IPv6 addresses) at the end
META: Final = _layout(
    "len pkt_type mark queue_mapping protocol vlan_present vlan_tci vlan_proto priority ingress_ifindex ifindex tc_index "
    "hash tc_classid napi_id family remote_ip4 local_ip4 remote_port local_port tstamp wire_len gso_segs gso_size "
    "tstamp_type hwtstamp data_off mac_header network_header transport_header sk sk_cookie sk_uid head_len "
    "cb0 cb1 cb2 remote_ip6_0 remote_ip6_1 local_ip6_0 local_ip6_1"
)
META_BYTES: Final = 8 * len(META)
FIND_TARGET: Final = 1 << 62  # what native code calls back for beside helpers: a row for the program that a tail call leads to
TARGET_ROW: Final = _layout("prog_id entry args")
TARGET_ROW_BYTES: Final = 8 * len(TARGET_ROW)
CALL_BACK_META: Final = ("protocol", "vlan_present", "vlan_proto")  # what a function of classic filters is told beside bytes
