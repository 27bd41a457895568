/* CO-RE of bit fields and elements of arrays: for a kernel of our own making (types/odd.c), so it loads on no other. */
#include "bpf_helpers.h"

struct bits {
	unsigned char array[4];
	int small : 2;
	unsigned long long wide : 40;
} __attribute__((preserve_access_index));

__u32 answers[12];

#define ASK(at, field)                                                          \
	answers[at] = __builtin_preserve_field_info(field, 0);                  \
	answers[at + 1] = __builtin_preserve_field_info(field, 1);              \
	answers[at + 2] = __builtin_preserve_field_info(field, 3);              \
	answers[at + 3] = __builtin_preserve_field_info(field, 4);              \
	answers[at + 4] = __builtin_preserve_field_info(field, 5)

SEC("socket")
int ask(struct __sk_buff *ctx)
{
	struct bits *bits = (void *)ctx;

	ASK(0, bits->small);
	ASK(5, bits->wide);
	answers[10] = __builtin_preserve_field_info(bits->array[3], 0);
	answers[11] = __builtin_preserve_field_info(bits->array, 1);
	return 0;
}

char _license[] SEC("license") = "GPL";
