/* A loop around a program that uBPF's JIT has compiled: r1 is the packet, r2 its length. */
#include "records.h"
#include "tables.h"
#include <ubpf.h>
#include <stdlib.h>

#define ERROR_BYTES 200

static int registered(struct ubpf_vm *vm)
{
    return !ubpf_register(vm, 1, "lookup_count", (void *)lookup_count) &&
           !ubpf_register(vm, 2, "lookup_flow", (void *)lookup_flow) &&
           !ubpf_register(vm, 3, "update_flow", (void *)update_flow);
}

/* The compiled program, or NULL and why. */
void *load_program(const void *code, uint32_t instructions, char error[ERROR_BYTES])
{
    struct ubpf_vm *vm = ubpf_create();
    char *message = NULL;
    ubpf_jit_fn compiled = NULL;

    if (vm && registered(vm) && !ubpf_load(vm, code, instructions * 8, &message))
        compiled = ubpf_compile(vm, &message);
    strncpy(error, message ? message : "no reason given", ERROR_BYTES - 1);
    free(message);
    return (void *)compiled;
}

/* How many packets the program accepts: returns a value other than 0 for. */
uint64_t run_program(void *program, uint8_t *file, uint64_t size, uint64_t *packets)
{
    ubpf_jit_fn compiled = (ubpf_jit_fn)program;
    struct records records = records_of(file, size);
    uint64_t count = 0, accepted = 0;

    for (; next_record(&records); count++)
        accepted += compiled((void *)records.data, records.caplen) != 0;
    *packets = count;
    return accepted;
}
