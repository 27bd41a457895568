; Packets and bytes of every IPv4 flow: VLAN tags, IP options and fragments seen to, 16-byte keys and values.

.name flows
.type socket_filter
.license "GPL"

.map flows hash key=16 value=16 entries=65536

    r6 = r1
    r0 = *(u16 *)skb[12]
    r7 = 14
    if r0 != 0x8100 goto untagged
    r0 = *(u16 *)skb[16]
    r7 = 18
untagged:
    if r0 != 0x800 goto out
    r0 = *(u8 *)skb[r7 + 0]
    r8 = r0
    r8 &= 0xf
    r8 <<= 2
    r8 += r7                                ; the transport header
    r0 = *(u8 *)skb[r7 + 9]
    *(u32 *)(r10 - 4) = r0                  ; key: source, destination, ports, protocol
    if r0 == 6 goto ports
    if r0 == 17 goto ports
none:
    *(u32 *)(r10 - 8) = 0
    goto addresses
ports:
    r0 = *(u16 *)skb[r7 + 6]
    r0 &= 0x1fff
    if r0 != 0 goto none                    ; a later fragment has none
    r0 = *(u32 *)skb[r8 + 0]
    *(u32 *)(r10 - 8) = r0
addresses:
    r0 = *(u32 *)skb[r7 + 12]
    *(u32 *)(r10 - 16) = r0
    r0 = *(u32 *)skb[r7 + 16]
    *(u32 *)(r10 - 12) = r0
    r8 = *(u32 *)(r6 + 0)                   ; skb->len
    r1 = map[flows]
    r2 = r10
    r2 += -16
    call bpf_map_lookup_elem
    if r0 == 0 goto first
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
    lock *(u64 *)(r0 + 8) += r8
    r0 = 0
    exit
first:
    r1 = 1
    *(u64 *)(r10 - 32) = r1
    *(u64 *)(r10 - 24) = r8
    r1 = map[flows]
    r2 = r10
    r2 += -16
    r3 = r10
    r3 += -32
    r4 = 0
    call bpf_map_update_elem
out:
    r0 = 0
    exit
