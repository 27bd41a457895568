/* The same with struct bpf_map_def in a section `maps`, without BTF, and a section named as in the old samples. */
#include "bpf_helpers.h"

struct bpf_map_def {
	unsigned int type, key_size, value_size, max_entries, map_flags;
};

struct bpf_map_def SEC("maps") packets = {
	.type = BPF_MAP_TYPE_HASH,
	.key_size = 4,
	.value_size = 8,
	.max_entries = 256,
};

struct bpf_map_def SEC("maps") bytes = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = 4,
	.value_size = 8,
	.max_entries = 256,
};

SEC("socket1")
int count(struct __sk_buff *skb)
{
	__u32 protocol = load_byte(skb, ETH_HLEN + 9);
	__u64 one = 1, *sum = bpf_map_lookup_elem(&bytes, &protocol), *number;

	if (sum)
		__sync_fetch_and_add(sum, skb->len);
	number = bpf_map_lookup_elem(&packets, &protocol);
	if (number)
		__sync_fetch_and_add(number, 1);
	else
		bpf_map_update_elem(&packets, &protocol, &one, BPF_ANY);
	return -1;
}

char _license[] SEC("license") = "GPL";
unsigned int _version SEC("version") = 0x061200;
