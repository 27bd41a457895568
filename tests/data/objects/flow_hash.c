/* Traffic of each flow, a hash by addresses, ports and protocol: what sockex2 of the kernel's samples shows.
 *
 * VLAN tags and GRE headers are stepped over; a fragment that is not the first, and a protocol without ports, has ports 0.
 */
#include "bpf_helpers.h"
#include "flows.h"

#define IP_FRAGMENT 0x1fff
#define GRE_HAS_CHECKSUM 0x8000
#define GRE_HAS_KEY 0x2000
#define GRE_HAS_SEQUENCE 0x1000

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct flow);
	__type(value, struct traffic);
} flows SEC(".maps");

static __always_inline __u32 fold(struct __sk_buff *skb, __u32 at)
{
	return load_word(skb, at) ^ load_word(skb, at + 4) ^ load_word(skb, at + 8) ^ load_word(skb, at + 12);
}

static __always_inline __u32 read_ip(struct __sk_buff *skb, __u32 at, struct flow *flow)
{
	flow->protocol = load_byte(skb, at + 9);
	if (load_half(skb, at + 6) & IP_FRAGMENT)
		flow->protocol |= 1 << 16;
	flow->source = load_word(skb, at + 12);
	flow->destination = load_word(skb, at + 16);
	return at + (load_byte(skb, at) & 15) * 4;
}

static __always_inline __u32 read_ipv6(struct __sk_buff *skb, __u32 at, struct flow *flow)
{
	flow->protocol = load_byte(skb, at + 6);
	flow->source = fold(skb, at + 8);
	flow->destination = fold(skb, at + 24);
	return at + 40;
}

static __always_inline int read_flow(struct __sk_buff *skb, struct flow *flow)
{
	__u32 at = ETH_HLEN, type = load_half(skb, 12);

	if (type == ETH_P_8021AD) {
		type = load_half(skb, at + 2);
		at += 4;
	}
	if (type == ETH_P_8021Q) {
		type = load_half(skb, at + 2);
		at += 4;
	}
	if (type == ETH_P_IP)
		at = read_ip(skb, at, flow);
	else if (type == ETH_P_IPV6)
		at = read_ipv6(skb, at, flow);
	else
		return 0;
	if (flow->protocol == IPPROTO_GRE) {
		__u32 flags = load_half(skb, at);

		type = load_half(skb, at + 2);
		at += 4;
		if (flags & GRE_HAS_CHECKSUM)
			at += 4;
		if (flags & GRE_HAS_KEY)
			at += 4;
		if (flags & GRE_HAS_SEQUENCE)
			at += 4;
		if (type == ETH_P_IP)
			at = read_ip(skb, at, flow);
		else if (type == ETH_P_IPV6)
			at = read_ipv6(skb, at, flow);
		else
			return 0;
	}
	if (flow->protocol == IPPROTO_TCP || flow->protocol == IPPROTO_UDP) {
		flow->source_port = load_half(skb, at);
		flow->destination_port = load_half(skb, at + 2);
	}
	flow->protocol &= 0xffff;
	return 1;
}

SEC("socket")
int count(struct __sk_buff *skb)
{
	struct flow flow = {};
	struct traffic *seen, first;

	if (!read_flow(skb, &flow))
		return 0;
	seen = bpf_map_lookup_elem(&flows, &flow);
	if (seen) {
		__sync_fetch_and_add(&seen->packets, 1);
		__sync_fetch_and_add(&seen->bytes, skb->len);
		return 0;
	}
	first.packets = 1;
	first.bytes = skb->len;
	bpf_map_update_elem(&flows, &flow, &first, BPF_ANY);
	return 0;
}

char _license[] SEC("license") = "GPL";
