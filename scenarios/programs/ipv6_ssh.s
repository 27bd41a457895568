; TCP to port 22 over IPv6, behind up to 7 extension headers. A loop that the verifier can see the end of.

    r6 = r1
    r0 = *(u16 *)skb[12]
    if r0 != 0x86dd goto drop
    r0 = *(u8 *)skb[20]
    r8 = r0                             ; which header is next
    r7 = 54                             ; and where it begins
    r9 = 0                              ; headers stepped over
next:
    if r8 == 6 goto tcp
    if r8 == 44 goto fragment
    if r8 == 0 goto options             ; hop-by-hop
    if r8 == 43 goto options            ; routing
    if r8 == 60 goto options            ; destination
drop:
    r0 = 0
    exit
options:
    r0 = *(u8 *)skb[r7 + 0]
    r8 = r0
    r0 = *(u8 *)skb[r7 + 1]             ; its length in units of 8 bytes, the first not counted
    r0 += 1
    r0 <<= 3
    r7 += r0
    goto more
fragment:
    r0 = *(u16 *)skb[r7 + 2]
    r0 &= 0xfff8
    if r0 != 0 goto drop                ; only the first fragment has ports
    r0 = *(u8 *)skb[r7 + 0]
    r8 = r0
    r7 += 8
more:
    r9 += 1
    if r9 < 8 goto next
    goto drop
tcp:
    r0 = *(u16 *)skb[r7 + 2]
    if r0 != 22 goto drop
    r0 = -1
    exit
