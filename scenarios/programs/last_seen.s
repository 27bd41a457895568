; Packets of each IPv4 source, in a map that forgets.

.map sources lru_hash key=4 value=8 entries=16

    r6 = r1
    r0 = *(u32 *)skb[26]
    r0 = be32 r0
    *(u32 *)(r10 - 4) = r0
    r2 = r10
    r2 += -4
    r1 = map[sources]
    call bpf_map_lookup_elem
    if r0 == 0 goto new
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
    r0 = 0
    exit
new:
    *(u64 *)(r10 - 16) = 1
    r2 = r10
    r2 += -4
    r3 = r10
    r3 += -16
    r1 = map[sources]
    r4 = BPF_ANY
    call bpf_map_update_elem
    r0 = 0
    exit
