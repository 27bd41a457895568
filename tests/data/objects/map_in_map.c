/* Maps in maps: packets counted by protocol in the inner map of the packet's direction; one shape, two ways to declare it. */
#include "bpf_helpers.h"

struct counters {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} incoming SEC(".maps"), outgoing SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 8);
	__type(key, __u32);
	__array(values, struct counters);
} by_direction SEC(".maps") = {
	.values = { [0] = &incoming, [4] = &outgoing },
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 256);
		__type(key, __u32);
		__type(value, __u64);
	});
} by_version SEC(".maps") = {
	.values = { [4] = (void *)&incoming },
};

SEC("socket")
int count(struct __sk_buff *skb)
{
	__u32 protocol = load_byte(skb, ETH_HLEN + 9), direction = skb->pkt_type, version = 4;
	void *counters = bpf_map_lookup_elem(&by_direction, &direction);
	__u64 *n;

	if (!counters)
		counters = bpf_map_lookup_elem(&by_version, &version);
	if (!counters)
		return 0;
	n = bpf_map_lookup_elem(counters, &protocol);
	if (n)
		__sync_fetch_and_add(n, 1);
	return -1;
}

char _license[] SEC("license") = "GPL";
