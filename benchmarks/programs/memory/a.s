; scenarios/counting.s for a JIT that gives a program memory: r6 is the packet, r9 its length; call 1 looks a count up.

    if r9 < 24 goto done
    r2 = *(u8 *)(r6 + 23)                   ; ip->proto
    *(u32 *)(r10 - 4) = r2
    r1 = r10
    r1 += -4
    call 1
    if r0 == 0 goto done
    r1 = *(u64 *)(r0 + 0)
    r1 += 1
    *(u64 *)(r0 + 0) = r1
done:
    r0 = 0
    exit
