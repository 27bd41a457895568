/* Global data of every kind, a setting of .kconfig, and static, global and hidden functions across sections. */
#include "bpf_helpers.h"

enum libbpf_tristate { TRI_NO, TRI_YES, TRI_MODULE };

extern int CONFIG_HZ __kconfig __weak;
extern _Bool CONFIG_BPF_SYSCALL __kconfig;
extern enum libbpf_tristate CONFIG_TUN __kconfig __weak;
extern char CONFIG_CC_VERSION_TEXT[16] __kconfig __weak;
extern int LINUX_KERNEL_VERSION __kconfig;

const volatile __u32 weights[4] = { 1, 10, 100, 1000 };
const volatile __u32 limit = 1500;
__u64 total = 1000000;	/* .data */
static __u64 packets;	/* .bss */
__u64 long_ones;
__u32 settings[4];
__u64 by_length[4] SEC(".data.lengths") = { 5 };

static __noinline __u32 weight(__u32 kind)
{
	return weights[kind & 3];
}

__noinline int kind_of(struct __sk_buff *skb)
{
	__u32 protocol = skb->protocol;

	return protocol == __builtin_bswap16(ETH_P_IP) ? 1 : protocol == __builtin_bswap16(ETH_P_IPV6) ? 2 : 0;
}

__hidden __noinline int is_long(__u32 len)
{
	return len > limit;
}

SEC("filter/helper")
__noinline int length_class(__u32 len)
{
	__u32 class = len < 64 ? 0 : len < 512 ? 1 : len < 1024 ? 2 : 3;

	__sync_fetch_and_add(&by_length[class], 1);
	return class;
}

SEC("socket")
int sum_up(struct __sk_buff *skb)
{
	__sync_fetch_and_add(&total, weight(kind_of(skb)));
	__sync_fetch_and_add(&packets, 1);
	length_class(skb->len);
	if (is_long(skb->len))
		__sync_fetch_and_add(&long_ones, 1);
	return skb->len;
}

SEC("socket")
int settings_of(struct __sk_buff *skb)
{
	settings[0] = CONFIG_HZ;
	settings[1] = CONFIG_BPF_SYSCALL;
	settings[2] = CONFIG_TUN;
	settings[3] = LINUX_KERNEL_VERSION;
	return CONFIG_CC_VERSION_TEXT[0];
}

char _license[] SEC("license") = "Dual MIT/GPL";
