; A record { source address, port, skb->len } for each TCP SYN over IPv4 without options.

.map events ringbuf key=0 value=0 entries=4096

    r6 = r1
    r0 = *(u16 *)skb[12]
    if r0 != 0x800 goto out
    r0 = *(u8 *)skb[23]
    if r0 != 6 goto out
    r0 = *(u8 *)skb[47]                 ; flags
    r0 &= 0x12
    if r0 != 0x02 goto out              ; SYN and not ACK
    r0 = *(u16 *)skb[36]                ; port
    r7 = r0
    r0 = *(u32 *)skb[26]                ; source
    r8 = r0
    r8 = be32 r8
    r1 = map[events]
    r2 = 8
    r3 = 0
    call bpf_ringbuf_reserve
    if r0 == 0 goto out
    *(u32 *)(r0 + 0) = r8
    *(u16 *)(r0 + 4) = r7
    r1 = *(u32 *)(r6 + 0)               ; skb->len
    *(u16 *)(r0 + 6) = r1
    r1 = r0
    r2 = 0
    call bpf_ringbuf_submit
out:
    r0 = 0
    exit
