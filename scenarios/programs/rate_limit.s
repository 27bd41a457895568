; A token bucket for each IPv4 source: BURST tokens at first, one more every INTERVAL. A packet takes one, or is dropped.

.const BURST = 4
.const INTERVAL = 400000000             ; ns
.map buckets lru_hash key=4 value=16 entries=1024

    r6 = r1
    r0 = *(u16 *)skb[12]
    if r0 != 0x800 goto pass
    r0 = *(u32 *)skb[26]
    r0 = be32 r0
    *(u32 *)(r10 - 4) = r0              ; key: the source as it stands in the packet
    call bpf_ktime_get_ns
    r7 = r0
    r2 = r10
    r2 += -4
    r1 = map[buckets]
    call bpf_map_lookup_elem
    if r0 == 0 goto new
    r1 = *(u64 *)(r0 + 0)               ; tokens
    r2 = *(u64 *)(r0 + 8)               ; when the last one was put in
    r3 = r7
    r3 -= r2
    r3 /= INTERVAL                      ; tokens earned since
    if r3 == 0 goto take
    r4 = r3
    r4 *= INTERVAL
    r2 += r4
    *(u64 *)(r0 + 8) = r2
    r1 += r3
    if r1 <= BURST goto take
    r1 = BURST
    *(u64 *)(r0 + 8) = r7               ; a full bucket earns from now on
take:
    if r1 == 0 goto empty
    r1 -= 1
    *(u64 *)(r0 + 0) = r1
pass:
    r0 = -1
    exit
empty:
    *(u64 *)(r0 + 0) = r1
    r0 = 0
    exit
new:
    *(u64 *)(r10 - 24) = BURST - 1
    *(u64 *)(r10 - 16) = r7
    r2 = r10
    r2 += -4
    r3 = r10
    r3 += -24
    r1 = map[buckets]
    r4 = BPF_ANY
    call bpf_map_update_elem
    r0 = -1
    exit
