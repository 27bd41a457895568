/* What tcpdump's inner loop comes to: pcap_next_ex and pcap_offline_filter over a savefile. */
#include <pcap/pcap.h>
#include <stdint.h>

int64_t filter_file(const char *path, const char *expression, uint64_t *packets)
{
    char error[PCAP_ERRBUF_SIZE];
    struct bpf_program program;
    struct pcap_pkthdr *header;
    const u_char *data;
    int64_t accepted = 0;
    pcap_t *file = pcap_open_offline(path, error);

    if (!file || pcap_compile(file, &program, expression, 1, PCAP_NETMASK_UNKNOWN))
        return -1;
    for (*packets = 0; pcap_next_ex(file, &header, &data) == 1; ++*packets)
        accepted += pcap_offline_filter(&program, header, data) != 0;
    pcap_freecode(&program);
    pcap_close(file);
    return accepted;
}
