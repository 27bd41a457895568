; The bpf(2) manual page's example: count TCP and UDP packets, map[skb->ip->proto]++.
; Attached to a raw socket; every verdict is 0, so nothing is ever queued.

.name counting
.type socket_filter
.license "GPL"

.const ETH_HLEN = 14
.const IP_PROTO = 9         ; offsetof(struct iphdr, protocol)

.map counts hash key=4 value=8 entries=2 {
    6: 0                    ; TCP
    17: 0                   ; UDP
}

    r6 = r1                                 ; the packet loads want the context in r6
    r0 = *(u8 *)skb[ETH_HLEN + IP_PROTO]    ; r0 = ip->proto
    *(u32 *)(r10 - 4) = r0
    r2 = r10
    r2 += -4
    r1 = map[counts]
    call bpf_map_lookup_elem
    if r0 == 0 goto done                    ; neither TCP nor UDP
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
done:
    r0 = 0
    exit
