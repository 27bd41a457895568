; Packets and bytes on each CPU, and what CPU did it: nothing is shared, nothing is locked.

.map traffic percpu_array key=4 value=16 entries=1
.map last array key=4 value=4 entries=1

    r6 = r1
    *(u32 *)(r10 - 4) = 0
    r2 = r10
    r2 += -4
    r1 = map[traffic]
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = *(u64 *)(r0 + 0)
    r1 += 1
    *(u64 *)(r0 + 0) = r1
    r1 = *(u32 *)(r6 + 0)
    r2 = *(u64 *)(r0 + 8)
    r2 += r1
    *(u64 *)(r0 + 8) = r2
    call bpf_get_smp_processor_id
    *(u32 *)(r10 - 8) = r0
    r2 = r10
    r2 += -4
    r3 = r10
    r3 += -8
    r1 = map[last]
    r4 = BPF_ANY
    call bpf_map_update_elem
out:
    r0 = 0
    exit
