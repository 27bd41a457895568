/* Bytes by IP protocol: what sockex1 of the kernel's samples shows. */
#include "bpf_helpers.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} bytes SEC(".maps");

SEC("socket")
int count(struct __sk_buff *skb)
{
	__u32 protocol = load_byte(skb, ETH_HLEN + 9);
	__u64 *sum = bpf_map_lookup_elem(&bytes, &protocol);

	if (sum)
		__sync_fetch_and_add(sum, skb->len);
	return 0;
}

char _license[] SEC("license") = "GPL";
