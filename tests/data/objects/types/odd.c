/* No program: a kernel that has every field elsewhere and in other widths than core.c and core_bits.c say. */
struct __sk_buff {
	unsigned int pad[4];
	union {
		unsigned long long x;
		struct {
			unsigned int protocol;
			unsigned short len;
		};
	};
} *skb;

enum bpf_map_type { NOTHING, BPF_MAP_TYPE_RINGBUF = 99 } type;

struct bits {
	unsigned int before : 30;
	int small : 3;
	unsigned long long wide : 33;
	unsigned char array[7];
} *bits;
