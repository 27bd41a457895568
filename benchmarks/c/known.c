/* What (b) and (c) come to where nothing has to be found: every record's place, and the element of every packet's flow, are told.
 * No program can be faster that has to find them; what is left is the memory. And (c) where the record's place alone is told. */
#include <stdlib.h>

#include "records.h"
#include "tables.h"

#define RECORDS_AHEAD 256
#define ELEMENTS_AHEAD 16
#define FLOWS_AHEAD 32 /* a power of two */
#define SHORTEST 54
#define ELEMENT 40 /* of 16 bytes of key and 16 of value behind 8, as netbpf has them */
#define SLOTS (1 << 18)

struct key {
    uint32_t source, destination, ports, protocol;
};

static uint16_t half(const uint8_t *at)
{
    uint16_t v;

    memcpy(&v, at, sizeof(v));
    return v;
}

static uint32_t word(const uint8_t *at)
{
    uint32_t v;

    memcpy(&v, at, sizeof(v));
    return v;
}

/* The key of an IPv4 packet's flow; 0 where it is none. */
static int key_of(const uint8_t *packet, uint32_t caplen, struct key *key)
{
    const uint8_t *ip = packet + (half(packet + 12) == 0x0081 ? 18 : 14);
    const uint8_t *ports = ip + (ip[0] & 15) * 4;

    if (caplen < SHORTEST || half(ip - 2) != 0x0008 || ports + 4 > packet + caplen)
        return 0;
    *key = (struct key){word(ip + 12), word(ip + 16), 0, ip[9]};
    if ((ip[9] == 6 || ip[9] == 17) && !(half(ip + 6) & 0xff1f))
        key->ports = word(ports);
    return 1;
}

static uint32_t element_of(struct key *keys, uint32_t *elements, uint32_t *used, const struct key *key)
{
    uint64_t mixed = (key->source + ((uint64_t)key->destination << 32)) * 0x9e3779b97f4a7c15 ^ key->ports ^ key->protocol;
    uint32_t slot = (mixed * 0x9e3779b97f4a7c15) >> 46;

    for (; elements[slot]; slot = (slot + 1) % SLOTS)
        if (!memcmp(keys + slot, key, sizeof(*key)))
            return elements[slot];
    keys[slot] = *key;
    return elements[slot] = ++*used;
}

/* Where every record is, and which element its packet's flow has, 0: none; elements are used in the order they are met. The number
 * of records; ``flows`` gets the number of elements. */
uint64_t find_all(const uint8_t *file, uint64_t size, uint64_t *record, uint32_t *element, uint32_t *flows)
{
    struct key *keys = calloc(SLOTS, sizeof(*keys)), key;
    uint32_t *elements = calloc(SLOTS, sizeof(*elements));
    struct records records = records_of(file, size);
    uint64_t n = 0;

    for (*flows = 0; next_record(&records); n++) {
        record[n] = records.data - RECORD_HEADER - file;
        element[n] = key_of(records.data, records.caplen, &key) ? element_of(keys, elements, flows, &key) : 0;
    }
    free(keys);
    free(elements);
    return n;
}

static inline const uint8_t *bring(const uint8_t *file, const uint64_t *record, uint64_t i, uint64_t n)
{
    const uint8_t *later = file + record[i + RECORDS_AHEAD < n ? i + RECORDS_AHEAD : n - 1];

    __builtin_prefetch(later);
    __builtin_prefetch(later + LINE);
    return file + record[i];
}

/* (b), by hand and without branches; how many packets it accepts. */
uint64_t filter_known(const uint8_t *file, const uint64_t *record, uint64_t n)
{
    uint64_t accepted = 0;

    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *at = bring(file, record, i, n), *p = at + RECORD_HEADER;
        uint32_t ports = 14 + (p[14] & 15) * 4, caplen = caplen_at(at);

        if (caplen < SHORTEST)
            continue;
        ports = ports + 4 <= caplen ? ports : 12;
        accepted += (half(p + 12) == 0x0008) & (p[23] == 6) & !(half(p + 20) & 0xff1f) & (p[26] != 10) & (p[30] != 10) &
                    ((half(p + ports) == 0xbb01) | (half(p + ports + 2) == 0xbb01));
    }
    return accepted;
}

/* (c) with the element told: the key's bytes are read, and two numbers of the element are added to. */
uint64_t count_known(const uint8_t *file, const uint64_t *record, const uint32_t *element, uint64_t n, uint8_t *table)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *at = bring(file, record, i, n), *p = at + RECORD_HEADER;
        uint8_t *later = table + (uint64_t)ELEMENT * element[i + ELEMENTS_AHEAD < n ? i + ELEMENTS_AHEAD : n - 1];
        uint64_t *value = (uint64_t *)(table + (uint64_t)ELEMENT * element[i] + 24);

        __builtin_prefetch(later + 8);
        __builtin_prefetch(later + ELEMENT - 1);
        sum += half(p + 12) + p[23] + word(p + 26) + word(p + 30) + word(p + 34) + value[-2] + value[-1];
        value[0]++;
        value[1] += caplen_at(at);
    }
    return sum;
}

/* (c) with the record told: a packet's flow is looked up where it is brought in FLOWS_AHEAD packets before, in a table without chains
 * whose keys and values lie side by side. How many flows there are. */
uint64_t count_flows_known(const uint8_t *file, const uint64_t *record, uint64_t n)
{
    struct {
        uint64_t key[2], size, slot;
    } waiting[FLOWS_AHEAD] = {0}, *w;

    for (uint64_t i = 0; i < n + FLOWS_AHEAD; i++) {
        w = waiting + i % FLOWS_AHEAD;
        if (w->size) {
            struct flow *flow = slot_from(w->slot, w->key[0], w->key[1]);

            flow_entries += is_free(flow);
            memcpy(flow->key, w->key, sizeof(w->key));
            flow->value[0]++;
            flow->value[1] += w->size;
        }
        w->size = 0;
        if (i < n) {
            const uint8_t *at = bring(file, record, i, n);
            struct key key;

            if (key_of(at + RECORD_HEADER, caplen_at(at), &key)) {
                memcpy(w->key, &key, sizeof(key));
                w->size = caplen_at(at);
                w->slot = first_slot(w->key[0], w->key[1]);
                __builtin_prefetch(flows + w->slot);
            }
        }
    }
    return flow_entries;
}
