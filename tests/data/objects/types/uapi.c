/* No program: the types of a kernel for core.c, as <linux/bpf.h> has them. Its .BTF is the file of types. */
#include <linux/bpf.h>

struct __sk_buff *skb;
enum bpf_map_type type;
