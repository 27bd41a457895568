/* The maps of the programs that another JIT runs, and its helpers: each knows its table, so that a program passes no handle.
 * Open addressing with linear probing at a load of a half at most, keys and values side by side; as for any program that is
 * run on one thread, nothing is locked. */
#ifndef TABLES_H
#define TABLES_H

#include <stdint.h>
#include <string.h>

/* --- counts: 4-byte keys, 8-byte values, 2 entries --- */
#define COUNT_SLOTS 4
#define COUNT_SHIFT 30

struct count {
    uint32_t key, is_used;
    uint64_t value;
};

static struct count counts[COUNT_SLOTS];

static inline struct count *count_slot(uint32_t key)
{
    uint32_t i = key * 0x9E3779B1u >> COUNT_SHIFT;

    while (counts[i].is_used && counts[i].key != key)
        i = (i + 1) & (COUNT_SLOTS - 1);
    return &counts[i];
}

static uint64_t lookup_count(uint64_t key_at, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
    struct count *slot;
    uint32_t key;

    (void)b, (void)c, (void)d, (void)e;
    memcpy(&key, (const void *)key_at, sizeof(key));
    slot = count_slot(key);
    return slot->is_used ? (uintptr_t)&slot->value : 0;
}

/* --- flows: 16-byte keys, 16-byte values, 65536 entries --- */
#define FLOW_ENTRIES 65536
#define FLOW_SLOTS (2 * FLOW_ENTRIES)
#define ZERO_SLOT FLOW_SLOTS /* a key of zeroes marks a free slot, and has a slot of its own */

struct flow {
    uint64_t key[2], value[2];
};

static struct flow flows[FLOW_SLOTS + 1];
static uint32_t flow_entries;
static int has_zero;

static inline uint64_t flow_hash(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)(a ^ 0x9E3779B97F4A7C15u) * (b ^ 0xD6E8FEB86659FD93u);

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* The number of the slot where a key is looked for first. */
static inline uint64_t first_slot(uint64_t a, uint64_t b)
{
    return flow_hash(a, b) & (FLOW_SLOTS - 1);
}

/* Where a key is, or the free slot that it would take; i is its first_slot. */
static inline struct flow *slot_from(uint64_t i, uint64_t a, uint64_t b)
{
    if (!(a | b))
        return &flows[ZERO_SLOT];
    while ((flows[i].key[0] ^ a) | (flows[i].key[1] ^ b) && flows[i].key[0] | flows[i].key[1])
        i = (i + 1) & (FLOW_SLOTS - 1);
    return &flows[i];
}

static inline struct flow *flow_slot(uint64_t a, uint64_t b)
{
    return slot_from(first_slot(a, b), a, b);
}

static inline int is_free(const struct flow *slot)
{
    return slot == &flows[ZERO_SLOT] ? !has_zero : !(slot->key[0] | slot->key[1]);
}

static uint64_t lookup_flow(uint64_t key_at, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
    uint64_t key[2];
    struct flow *slot;

    (void)b, (void)c, (void)d, (void)e;
    memcpy(key, (const void *)key_at, sizeof(key));
    slot = flow_slot(key[0], key[1]);
    return is_free(slot) ? 0 : (uintptr_t)slot->value;
}

static uint64_t update_flow(uint64_t key_at, uint64_t value_at, uint64_t c, uint64_t d, uint64_t e)
{
    uint64_t key[2];
    struct flow *slot;

    (void)c, (void)d, (void)e;
    memcpy(key, (const void *)key_at, sizeof(key));
    slot = flow_slot(key[0], key[1]);
    if (is_free(slot)) {
        if (flow_entries == FLOW_ENTRIES)
            return -7; /* -E2BIG */
        flow_entries++;
        has_zero |= slot == &flows[ZERO_SLOT];
        memcpy(slot->key, key, sizeof(key));
    }
    memcpy(slot->value, (const void *)value_at, sizeof(slot->value));
    return 0;
}

/* --- what Python asks --- */

/* No flows, and counts of the two keys at 0. */
void clear_tables(uint32_t first, uint32_t second)
{
    memset(counts, 0, sizeof(counts));
    memset(flows, 0, sizeof(flows));
    flow_entries = has_zero = 0;
    *count_slot(first) = (struct count){.key = first, .is_used = 1};
    *count_slot(second) = (struct count){.key = second, .is_used = 1};
}

uint64_t count_of(uint32_t key)
{
    return count_slot(key)->value;
}

/* Every flow into ``out``, room for FLOW_ENTRIES; how many. */
uint32_t copy_flows(struct flow *out)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i <= FLOW_SLOTS; i++)
        if (!is_free(&flows[i]))
            out[n++] = flows[i];
    return n;
}

#endif
