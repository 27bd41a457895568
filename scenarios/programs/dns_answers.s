; { skb->len } and the first 14 bytes of every UDP packet from port 53 (IPv4 without options).

.map events perf_event_array key=4 value=4 entries=0

    r6 = r1
    r0 = *(u8 *)skb[23]
    if r0 != 17 goto out
    r0 = *(u16 *)skb[34]
    if r0 != 53 goto out
    r1 = *(u32 *)(r6 + 0)
    *(u32 *)(r10 - 4) = r1
    r1 = r6
    r2 = map[events]
    r3 = 0xeffffffff ll                 ; BPF_F_CURRENT_CPU, and 14 bytes of the packet
    r4 = r10
    r4 += -4
    r5 = 4
    call bpf_perf_event_output
out:
    r0 = 0
    exit
