/* A loop around a program that DPDK's librte_bpf has compiled. It takes one pointer: to the pcap record, whose header has the
 * length. DPDK's own verifier bounds what the program reads by the largest record. */
#include "records.h"
#include "tables.h"
#include <rte_bpf.h>
#include <rte_errno.h>
#include <stdio.h>

#define ERROR_BYTES 200
#define LARGEST (RECORD_HEADER + 65535)

#define POINTER(bytes) {.type = RTE_BPF_ARG_PTR, .size = (bytes)}
#define FUNCTION(f, n, returned, ...) \
    {.name = #f, .type = RTE_BPF_XTYPE_FUNC, .func = {.val = f, .nb_args = n, .args = {__VA_ARGS__}, .ret = returned}}

static const struct rte_bpf_arg number = {.type = RTE_BPF_ARG_RAW, .size = sizeof(uint64_t)};

/* The compiled program, or NULL and why. */
void *load_program(const void *code, uint32_t instructions, char error[ERROR_BYTES])
{
    const struct rte_bpf_xsym helpers[] = {
        FUNCTION(lookup_count, 1, POINTER(8), POINTER(4)), /* no program calls number 0 */
        FUNCTION(lookup_count, 1, POINTER(8), POINTER(4)),
        FUNCTION(lookup_flow, 1, POINTER(16), POINTER(16)),
        FUNCTION(update_flow, 2, number, POINTER(16), POINTER(16)),
    };
    const struct rte_bpf_prm parameters = {
        .ins = code, .nb_ins = instructions, .xsym = helpers, .nb_xsym = sizeof(helpers) / sizeof(*helpers),
        .prog_arg = POINTER(LARGEST),
    };
    struct rte_bpf *loaded = rte_bpf_load(&parameters);
    struct rte_bpf_jit compiled = {0};

    if (!loaded || rte_bpf_get_jit(loaded, &compiled) || !compiled.func)
        snprintf(error, ERROR_BYTES, "%s", loaded ? "it has no code for this machine" : rte_strerror(rte_errno));
    return (void *)compiled.func;
}

/* How many packets the program accepts: returns a value other than 0 for. */
uint64_t run_program(void *program, uint8_t *file, uint64_t size, uint64_t *packets)
{
    uint64_t (*compiled)(void *) = program;
    struct records records = records_of(file, size);
    uint64_t count = 0, accepted = 0;

    for (; next_record(&records); count++)
        accepted += compiled((void *)(records.data - RECORD_HEADER)) != 0;
    *packets = count;
    return accepted;
}
