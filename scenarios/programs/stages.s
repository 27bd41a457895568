; A chain of three programs by tail calls: what is not IPv4 stays at the first, what is not UDP at the second; the third keeps the
; headers. Each counts what it saw. A stage that user space has taken out of the array lets the chain end there, with a verdict
; of its own: all of the packet.

.map stages prog_array key=4 value=4 entries=2 {
    0: &transport
    1: &keep
}
.map seen array key=4 value=8 entries=3

    r6 = r1
    *(u32 *)(r10 - 4) = 0
    r2 = r10
    r2 += -4
    r1 = map[seen]
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
    r0 = *(u16 *)skb[12]
    if r0 != 0x800 goto out
    r1 = r6
    r2 = map[stages]
    r3 = 0
    call bpf_tail_call
    r0 = -1
    exit
out:
    r0 = 0
    exit

.program transport
    r6 = r1
    *(u32 *)(r10 - 4) = 1
    r2 = r10
    r2 += -4
    r1 = map[seen]
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
    r0 = *(u8 *)skb[23]
    if r0 != 17 goto out
    r1 = r6
    r2 = map[stages]
    r3 = 1
    call bpf_tail_call
    r0 = -1
    exit
out:
    r0 = 0
    exit

.program keep
    r6 = r1
    *(u32 *)(r10 - 4) = 2
    r2 = r10
    r2 += -4
    r1 = map[seen]
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
    r0 = 42
    exit
out:
    r0 = 0
    exit
