; flows.s for a JIT that gives a program memory: r6 is the packet, r9 its length; call 2 looks a flow up, call 3 adds one. One
; check covers the fixed header, numbers are compared as they lie there, and both addresses are moved at once.

    r8 = r9
    if r9 < 34 goto out
    r2 = *(u16 *)(r6 + 12)
    if r2 != 0x0081 goto untagged
    r9 += -4
    if r9 < 34 goto out
    r6 += 4
    r2 = *(u16 *)(r6 + 12)
untagged:
    if r2 != 0x0008 goto out
    r7 = *(u8 *)(r6 + 23)
    if r7 == 6 goto ports
    if r7 == 17 goto ports
none:
    r4 = 0
    goto addresses
ports:
    r4 = *(u16 *)(r6 + 20)
    r4 &= 0xff1f
    if r4 != 0 goto none                    ; a later fragment has none
    r4 = *(u8 *)(r6 + 14)
    r4 &= 0xf
    r4 <<= 2                                ; the IPv4 header's length
    r3 = r4
    r3 += 18
    if r3 > r9 goto out
    r3 = r6
    r3 += r4
    r4 = *(u32 *)(r3 + 14)
addresses:
    r7 <<= 32
    r7 |= r4
    *(u64 *)(r10 - 8) = r7                  ; key: source, destination, ports, protocol, stored as the helper loads it
    r2 = *(u64 *)(r6 + 26)
    *(u64 *)(r10 - 16) = r2
    r1 = r10
    r1 += -16
    call 2
    if r0 == 0 goto first
    r1 = *(u64 *)(r0 + 0)
    r1 += 1
    *(u64 *)(r0 + 0) = r1
    r1 = *(u64 *)(r0 + 8)
    r1 += r8
    *(u64 *)(r0 + 8) = r1
    r0 = 0
    exit
first:
    r1 = 1
    *(u64 *)(r10 - 32) = r1
    *(u64 *)(r10 - 24) = r8
    r1 = r10
    r1 += -16
    r2 = r10
    r2 += -32
    call 3
out:
    r0 = 0
    exit
