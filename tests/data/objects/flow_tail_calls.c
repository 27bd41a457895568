/* Traffic of each flow by tail calls, one program a header: what sockex3 of the kernel's samples shows.
 *
 * The programs find each other in a program array that the object itself fills; between them, cb[0] holds where the next
 * header begins, and a per-CPU element of `scratch` the flow so far. `filter` is where a socket begins.
 */
#include "bpf_helpers.h"
#include "flows.h"

enum { STEP_IP, STEP_IPV6, STEP_VLAN, STEP_TRANSPORT, STEPS };

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct flow);
	__type(value, struct traffic);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow);
} scratch SEC(".maps");

int read_ip(struct __sk_buff *skb);
int read_ipv6(struct __sk_buff *skb);
int read_vlan(struct __sk_buff *skb);
int read_transport(struct __sk_buff *skb);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, STEPS);
	__uint(key_size, sizeof(__u32));
	__array(values, int (void *));
} steps SEC(".maps") = {
	.values = {
		[STEP_IP] = (void *)&read_ip,
		[STEP_IPV6] = (void *)&read_ipv6,
		[STEP_VLAN] = (void *)&read_vlan,
		[STEP_TRANSPORT] = (void *)&read_transport,
	},
};

static __always_inline struct flow *this_flow(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

static __always_inline int by_type(struct __sk_buff *skb, __u32 type, __u32 at)
{
	skb->cb[0] = at;
	if (type == ETH_P_IP)
		bpf_tail_call(skb, &steps, STEP_IP);
	else if (type == ETH_P_IPV6)
		bpf_tail_call(skb, &steps, STEP_IPV6);
	else if (type == ETH_P_8021Q || type == ETH_P_8021AD)
		bpf_tail_call(skb, &steps, STEP_VLAN);
	return 0;
}

SEC("socket/vlan")
int read_vlan(struct __sk_buff *skb)
{
	__u32 at = skb->cb[0];

	return by_type(skb, load_half(skb, at + 2), at + 4);
}

SEC("socket/ip")
int read_ip(struct __sk_buff *skb)
{
	__u32 at = skb->cb[0], later;
	struct flow *flow = this_flow();

	if (!flow)
		return 0;
	flow->protocol = load_byte(skb, at + 9);
	flow->source = load_word(skb, at + 12);
	flow->destination = load_word(skb, at + 16);
	later = load_half(skb, at + 6) & 0x1fff;
	skb->cb[1] = later || (flow->protocol != IPPROTO_TCP && flow->protocol != IPPROTO_UDP);
	skb->cb[0] = at + (load_byte(skb, at) & 15) * 4;
	bpf_tail_call(skb, &steps, STEP_TRANSPORT);
	return 0;
}

SEC("socket/ipv6")
int read_ipv6(struct __sk_buff *skb)
{
	__u32 at = skb->cb[0], s = 0, d = 0;
	struct flow *flow = this_flow();

	if (!flow)
		return 0;
	flow->protocol = load_byte(skb, at + 6);
#pragma unroll
	for (int i = 0; i < 16; i += 4) {
		s ^= load_word(skb, at + 8 + i);
		d ^= load_word(skb, at + 24 + i);
	}
	flow->source = s;
	flow->destination = d;
	skb->cb[1] = flow->protocol != IPPROTO_TCP && flow->protocol != IPPROTO_UDP;
	skb->cb[0] = at + 40;
	bpf_tail_call(skb, &steps, STEP_TRANSPORT);
	return 0;
}

SEC("socket/transport")
int read_transport(struct __sk_buff *skb)
{
	__u32 at = skb->cb[0];
	struct flow *flow = this_flow();
	struct traffic *seen, first;

	if (!flow)
		return 0;
	flow->source_port = flow->destination_port = 0;
	if (!skb->cb[1]) {
		flow->source_port = load_half(skb, at);
		flow->destination_port = load_half(skb, at + 2);
	}
	seen = bpf_map_lookup_elem(&flows, flow);
	if (seen) {
		__sync_fetch_and_add(&seen->packets, 1);
		__sync_fetch_and_add(&seen->bytes, skb->len);
		return 0;
	}
	first.packets = 1;
	first.bytes = skb->len;
	bpf_map_update_elem(&flows, flow, &first, BPF_ANY);
	return 0;
}

SEC("socket")
int filter(struct __sk_buff *skb)
{
	return by_type(skb, load_half(skb, 12), ETH_HLEN);
}

char _license[] SEC("license") = "GPL";
