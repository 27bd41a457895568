/* An event for every UDP packet, through a ring buffer; a count of what was lost, in a map that is pinned by its name. */
#include "bpf_helpers.h"

struct event {
	__u32 source;
	__u32 destination;
	__u16 source_port;
	__u16 destination_port;
	__u32 len;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 5000);	/* rounded up to 8192 */
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} netbpf_lost SEC(".maps");

SEC("socket")
int watch(struct __sk_buff *skb)
{
	struct event *event;
	__u8 head[28];
	__u32 zero = 0;
	__u64 *count;

	if (skb->protocol != __builtin_bswap16(ETH_P_IP) || bpf_skb_load_bytes(skb, ETH_HLEN, head, sizeof(head)) < 0)
		return 0;
	if (head[0] != 0x45 || head[9] != IPPROTO_UDP || (head[6] & 0x1f) || head[7])
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		count = bpf_map_lookup_elem(&netbpf_lost, &zero);
		if (count)
			__sync_fetch_and_add(count, 1);
		return 0;
	}
	__builtin_memcpy(&event->source, head + 12, 4);
	__builtin_memcpy(&event->destination, head + 16, 4);
	event->source_port = head[20] << 8 | head[21];
	event->destination_port = head[22] << 8 | head[23];
	event->len = skb->len;
	bpf_ringbuf_submit(event, 0);
	return skb->len;
}

char _license[] SEC("license") = "GPL";
