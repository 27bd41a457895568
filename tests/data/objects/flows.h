/* A flow: its addresses and ports in host order (an IPv6 address folded to 32 bits), and how much was seen of it. */
#ifndef FLOWS_H
#define FLOWS_H

struct flow {
	__u32 source;
	__u32 destination;
	__u16 source_port;
	__u16 destination_port;
	__u32 protocol;
};

struct traffic {
	__u64 packets;
	__u64 bytes;
};

#endif
