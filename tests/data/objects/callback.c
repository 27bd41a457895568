/* A callback: the address of a static function, handed to a helper. */
#include "bpf_helpers.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} numbers SEC(".maps");

static long add(void *map, const void *key, void *value, void *sum)
{
	*(__u64 *)sum += *(__u64 *)value;
	return 0;
}

SEC("socket")
int sum_up(struct __sk_buff *skb)
{
	__u32 slot = skb->len & 3;
	__u64 *n = bpf_map_lookup_elem(&numbers, &slot), sum = 0;

	if (n)
		*n += 1;
	bpf_for_each_map_elem(&numbers, add, &sum, 0);
	return sum;
}

char _license[] SEC("license") = "GPL";
