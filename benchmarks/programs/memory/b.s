; ip and tcp port 443 and not net 10.0.0.0/8, for a JIT that gives a program memory: r6 is the packet, r9 its length. The tests
; come in the order of libpcap's code; one check covers the fixed header, and numbers are compared as they lie there.

    if r9 < 34 goto drop
    r2 = *(u16 *)(r6 + 12)
    if r2 != 0x0008 goto drop               ; IPv4
    r2 = *(u8 *)(r6 + 23)
    if r2 != 6 goto drop                    ; TCP
    r2 = *(u16 *)(r6 + 20)
    r2 &= 0xff1f
    if r2 != 0 goto drop                    ; a later fragment
    r3 = *(u8 *)(r6 + 14)
    r3 &= 0xf
    r3 <<= 2                                ; the IPv4 header's length
    r2 = r3
    r2 += 18
    if r2 > r9 goto drop
    r1 = r6
    r1 += r3
    r2 = *(u16 *)(r1 + 14)
    if r2 == 0xbb01 goto addresses
    r2 = *(u16 *)(r1 + 16)
    if r2 != 0xbb01 goto drop
addresses:
    r2 = *(u8 *)(r6 + 26)
    if r2 == 10 goto drop
    r2 = *(u8 *)(r6 + 30)
    if r2 == 10 goto drop
    r0 = 262144
    exit
drop:
    r0 = 0
    exit
