"""Over three hundred tcpdump expressions, of every primitive that Ethernet captures have, single and combined."""

from __future__ import annotations

_SINGLE = """
ip
ip6
arp
rarp
tcp
udp
sctp
icmp
icmp6
igmp
pim
ah
esp
vrrp
carp
stp
ipx
netbeui
atalk
aarp
decnet
lat
iso
clnp
esis
isis
llc
llc u
llc i
llc s
llc rr
pppoed
pppoes
pppoes 1
pppoes and ip
mpls
mpls 16
mpls and ip
mpls 16 and mpls and ip
geneve
geneve 5
vlan
vlan 5
vlan 7 and vlan 5
vlan and ip
vlan 5 and tcp
vlan and vlan and vlan
not vlan
vlan or ip
ip or vlan
ether host 02:00:00:00:00:01
ether src 02:00:00:00:00:01
ether dst ff:ff:ff:ff:ff:ff
ether broadcast
ether multicast
broadcast
multicast
ip multicast
ip6 multicast
host 10.0.0.1
src host 10.0.0.1
dst host 10.0.0.2
src 10.0.0.1
dst 10.0.0.2
src and dst 10.0.0.1
src or dst 10.0.0.1
ip host 10.0.0.1
arp host 10.0.0.1
rarp src host 10.0.0.1
net 10
net 10.0.0.0/8
net 10.0.0.0/30
net 10.0.0.0 mask 255.255.255.0
src net 10.0
dst net 192.168.0.0/16
ip net 10.0.0
ip6 host ::1
ip6 src host fe80::1
ip6 net fe80::/10
ip6 net ::/64
ip6 dst net ::/127
host ::2
net ::/96
port 53
port 80
src port 1
dst port 53
tcp port 80
udp port 53
sctp port 0
tcp src port 1
tcp dst port 80
udp src port 1
port domain
port http
portrange 1-80
portrange 50-60
src portrange 0-10
tcp portrange 79-81
udp dst portrange 53-53
ip proto 17
ip proto 6
ip proto \\tcp
ip proto 47
ip proto 4
ip6 proto 17
ip6 proto 6
ip6 proto 58
proto 17
proto \\udp
proto 132
ip protochain 17
ip protochain 51
ether proto 0x0800
ether proto \\ip
ether proto \\ip6
ether proto \\arp
ether proto 0x1234
ether proto 0x40
ether proto 0x88cc
less 100
greater 100
less 60
greater 2000
len > 60
len < 60
len == 2600
len >= 42 and len <= 74
len != 2600
len & 1 = 0
len / 2 > 40
len - 14 > 46
2 * len < 200
len % 7 = 3
ether[0] & 1 = 0
ether[0] & 1 != 0
ether[12:2] = 0x0800
ether[12:2] > 1500
ether[12:2] <= 1500
ether[6:4] = 0x02000000
ether[2599] = 0x11
ether[2600] = 0
ether[60:4] != 0
ip[0] = 0x45
ip[0] & 0xf != 5
ip[0] & 0xf0 = 0x40
ip[2:2] > 40
ip[6:2] & 0x1fff = 0
ip[6:2] & 0x2000 != 0
ip[6] & 0x20 != 0
ip[8] < 65
ip[9] = 17
ip[12:4] = 0x0a000001
ip[16:4] & 0xffffff00 = 0x0a000000
ip[0:4] > 0
ip[0:2] & 0xff = 0
ip[ip[9]] > 5
ip[(ip[0] & 0xf) * 4] = 0
ip[2:2] - ((ip[0] & 0xf) << 2) > 8
ip[2:2] >> 3 = 4
ip[2:2] ^ 0x20 = 0
ip[2:2] | 1 = 0x21
ip[2:2] % 4 = 0
ip[2:2] / 4 = 8
ip[2:2] * 3 > 100
ip[2:2] = len - 14
ip[8] + ip[9] = 81
ip[0] << 8 = 0x4500
ip6[6] = 17
ip6[6] = 6 or ip6[6] = 58
ip6[4:2] > 8
ip6[0] & 0xf0 = 0x60
ip6[0:4] & 0xfffff != 0
ip6[40] = 0
tcp[13] = 2
tcp[13] & 2 != 0
tcp[tcpflags] = tcp-syn
tcp[tcpflags] & (tcp-syn|tcp-fin) != 0
tcp[tcpflags] & tcp-ack = 0
tcp[tcpflags] & tcp-rst != 0
tcp[tcpflags] & tcp-push != 0
tcp[12] & 0xf0 > 0x50
tcp[(tcp[12] & 0xf0) >> 2] = 0x11
tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x11111111
tcp[0:2] = 1
tcp[2:2] = 80
tcp[4:4] = 0
tcp[14:2] < 1024
udp[0:2] = 1
udp[2:2] = 53
udp[4:2] = 12
udp[8:4] = 0xaaaaaaaa
udp[8] & 0xf0 = 0xa0
udp[4:2] > 8
icmp[icmptype] = icmp-echo
icmp[icmptype] != icmp-echoreply
icmp[icmpcode] = 0
icmp[0] = 8 and icmp[1] = 0
icmp[4:2] = 1
icmp6[icmp6type] = icmp6-echo
icmp6[0] = 8
arp[6:2] = 1
arp[6:2] = 3
arp[2:2] = 0x0800
arp[14:4] = 0
rarp[6:2] = 3
igmp[0] = 8
sctp[0:2] = 0
ip and not tcp and not udp
tcp or udp
(tcp or udp) and port 80
not (tcp or udp)
not ip and not ip6 and not arp
tcp port 80 or udp port 53
tcp port 80 and host 10.0.0.1
tcp and dst port 80 and src net 10.0.0.0/8
udp and (src port 1 or dst port 1)
udp and not port 53
host 10.0.0.1 and host 10.0.0.2
host 10.0.0.1 and not host 10.0.0.2
host 10.0.0.1 or host ::1
net 10.0.0.0/8 or ip6 net ::/8
ip and ip[6:2] & 0x3fff != 0
ip and len > 100 and ip[8] > 10
(ip or ip6) and (tcp or udp or icmp or icmp6)
ip6 and not icmp6
ip6 and tcp port 80
ip6 and udp
ether src 02:00:00:00:00:01 and ip
ether src 02:00:00:00:00:01 and not broadcast
broadcast or multicast
not broadcast and not multicast
arp or icmp
arp and broadcast
icmp or (udp and port 53)
tcp[tcpflags] & tcp-syn != 0 and not src and dst net 10.0.0.0/8
tcp[13] & 2 != 0 and tcp[14:2] = 0
vlan 5 and (tcp or udp)
vlan and port 80
vlan and not ip
(vlan 5 or vlan 7) and ip
not vlan and ip
pppoes and ip6
pppoes and tcp
mpls and (tcp or udp)
ip proto 41
ip proto 47 and ip[20:2] & 0x2000 != 0
ip proto 47 and ip[22:2] = 0x0800
ip[9] = 4 and ip[20] = 0x45
ip[0] & 0xf > 5 and udp
len > 60 and (tcp or udp) and not port 22
len > 60 or arp
tcp and len = 2600 and ether[14] = 0x45
ether[14] = 0x45 or ether[14] & 0xf0 = 0x60
ether[20:2] & 0x1fff = 0 and ether[23] = 6
1 = 1
0 != 0 or ip
ip and 5 > 3
inbound
outbound
ip and inbound
not outbound
"""

_HOSTS = ("10.0.0.1", "10.0.0.2", "192.168.1.1")
_PORTS = (1, 53, 80, 443)


def _combined() -> list[str]:
    out = [f"{proto} {way} port {port}" for proto in ("tcp", "udp") for way in ("src", "dst") for port in _PORTS]
    out += [f"{way} host {host} and {proto}" for way in ("src", "dst") for host in _HOSTS for proto in ("tcp", "udp", "icmp")]
    out += [f"({a}) or ({b})" for a in ("ip", "tcp port 80", "len > 80") for b in ("udp", "ip6", "vlan 5")]
    places, signs = ((0, 1), (2, 2), (12, 4)), ("=", ">", "<=")
    out += [f"ip[{off}:{size}] {sign} {value}" for off, size in places for sign in signs for value in (32, 69)]
    return out


EXPRESSIONS = list(dict.fromkeys([*filter(None, _SINGLE.splitlines()), *_combined()]))
REFUSED = {
    "ip broadcast": "netmask not known, so 'ip broadcast' not supported",
    "1 = 2": "expression rejects all packets",
    "ip and ip6": "expression rejects all packets",
    "ip and vlan 5": "expression rejects all packets",
    "gateway": "syntax error",
    "vlan vlan": "syntax error",
    "port": "syntax error",
    "host 1.2.3.4.5": "unknown host '1.2.3.4.5'",
    "ether[99999999999] = 1": "overflows 32 bits",
    "ip[0:3] = 1": "data size must be 1, 2, or 4",
    "link[": "syntax error",
}
