; Counts UDP packets to high ports, and forgets that a lookup may find nothing: the verifier refuses it.
.map counts hash key=4 value=8 entries=2
    r6 = r1
    r0 = *(u16 *)skb[12]
    if r0 != 0x800 goto out
    r0 = *(u8 *)skb[23]
    if r0 != 17 goto out
    r0 = *(u16 *)skb[36]
    if r0 < 1000 goto out
    *(u32 *)(r10 - 4) = r0
    r2 = r10
    r2 += -4
    r1 = map[counts]
    call bpf_map_lookup_elem
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
out:
    r0 = 0
    exit
