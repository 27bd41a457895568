; UDP datagrams to port 5353, told by a first fragment or a whole datagram; every port seen is counted.

.map seen hash key=2 value=8 entries=64

    r6 = r1
    r0 = *(u16 *)skb[12]
    if r0 != 0x800 goto drop            ; IPv4 only
    r0 = *(u8 *)skb[23]
    if r0 != 17 goto drop               ; UDP only
    r0 = *(u16 *)skb[20]
    r0 &= 0x1fff
    if r0 != 0 goto drop                ; a later fragment has no ports
    r0 = *(u8 *)skb[14]
    r0 &= 15
    r0 <<= 2
    r7 = r0                             ; length of the IP header
    r0 = *(u16 *)skb[r7 + 16]           ; destination port
    r7 = r0
    r0 = be16 r0
    *(u16 *)(r10 - 2) = r0              ; as it stands in the packet
    r2 = r10
    r2 += -2
    r1 = map[seen]
    call bpf_map_lookup_elem
    if r0 == 0 goto first
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
    goto decide
first:
    *(u64 *)(r10 - 16) = 1
    r2 = r10
    r2 += -2
    r3 = r10
    r3 += -16
    r1 = map[seen]
    r4 = BPF_ANY
    call bpf_map_update_elem
decide:
    r0 = 0
    if r7 != 5353 goto out
    r0 = -1
out:
    exit
drop:
    r0 = 0
    exit
