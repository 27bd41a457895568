/* CO-RE: fields, types and enumerators as the kernel that runs has them. No field here is where it says. */
#include "bpf_helpers.h"

#define preserve __attribute__((preserve_access_index))

/* the kernel's struct, under a flavor, its members in another order and not all of them */
struct __sk_buff___few {
	__u32 protocol;
	__u32 len;
	__u32 no_such_field;
} preserve;

struct no_such_struct {
	int x;
} preserve;

enum bpf_map_type___old {
	BPF_MAP_TYPE_RINGBUF___old = 5000,
	NO_SUCH_TYPE = 5001,
};

__u32 answers[10];

SEC("socket")
int ask(struct __sk_buff *ctx)
{
	struct __sk_buff___few *skb = (void *)ctx;
	struct no_such_struct *none = (void *)ctx;

	answers[0] = skb->len;
	answers[1] = skb->protocol;
	answers[2] = __builtin_preserve_field_info(skb->no_such_field, 2);
	answers[3] = __builtin_preserve_field_info(skb->len, 2);
	answers[4] = __builtin_preserve_field_info(skb->len, 0);
	answers[5] = __builtin_preserve_field_info(skb->len, 1);
	answers[6] = __builtin_preserve_type_info(*none, 0);
	answers[7] = __builtin_preserve_type_info(*skb, 1);
	answers[8] = __builtin_preserve_enum_value(*(enum bpf_map_type___old *)BPF_MAP_TYPE_RINGBUF___old, 1);
	answers[9] = __builtin_preserve_enum_value(*(enum bpf_map_type___old *)NO_SUCH_TYPE, 0);
	if (__builtin_preserve_field_info(skb->no_such_field, 2))
		return skb->no_such_field;	/* poisoned, and dead */
	return skb->len;
}

char _license[] SEC("license") = "GPL";
