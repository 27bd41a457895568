/* The records of a little-endian pcap in memory, one after the other, with a prefetch cursor that runs 8 KB ahead over every
 * cache line. */
#ifndef RECORDS_H
#define RECORDS_H

#include <stdint.h>
#include <string.h>

#define FILE_HEADER 24
#define RECORD_HEADER 16
#define CAPLEN_AT 8
#define AHEAD 8192
#define LINE 64

struct records {
    const uint8_t *file;
    uint64_t size, next, cursor;
    const uint8_t *data; /* the packet that next_record found */
    uint64_t caplen;
};

static inline struct records records_of(const uint8_t *file, uint64_t size)
{
    return (struct records){.file = file, .size = size, .next = FILE_HEADER};
}

static inline uint32_t caplen_at(const uint8_t *record)
{
    uint32_t caplen;

    memcpy(&caplen, record + CAPLEN_AT, sizeof(caplen));
    return caplen;
}

/* 1, or 0 where no whole record is left. */
static inline int next_record(struct records *r)
{
    const uint8_t *record = r->file + r->next;

    if (r->next + RECORD_HEADER > r->size)
        return 0;
    r->caplen = caplen_at(record);
    r->data = record + RECORD_HEADER;
    if (r->next + RECORD_HEADER + r->caplen > r->size)
        return 0;
    for (; r->cursor < r->next + AHEAD; r->cursor += LINE)
        __builtin_prefetch(r->file + r->cursor);
    r->next += RECORD_HEADER + r->caplen;
    return 1;
}

#endif
