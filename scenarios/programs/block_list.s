; Drops IPv4 packets from networks in a list, the longest prefix first: a value of 1 blocks, 0 allows. Counts what it blocked.

.map blocked lpm_trie key=8 value=4 entries=64 flags=BPF_F_NO_PREALLOC
.map hits array key=4 value=8 entries=1

    r6 = r1
    r0 = *(u16 *)skb[12]
    if r0 != 0x800 goto pass
    r0 = *(u32 *)skb[26]
    r0 = be32 r0
    *(u32 *)(r10 - 4) = r0
    *(u32 *)(r10 - 8) = 32
    r2 = r10
    r2 += -8
    r1 = map[blocked]
    call bpf_map_lookup_elem
    if r0 == 0 goto pass
    r0 = *(u32 *)(r0 + 0)
    if r0 == 0 goto pass
    *(u32 *)(r10 - 12) = 0
    r2 = r10
    r2 += -12
    r1 = map[hits]
    call bpf_map_lookup_elem
    if r0 == 0 goto drop
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
drop:
    r0 = 0
    exit
pass:
    r0 = -1
    exit
