"""The verifier's rules as rows: what is decided, where here, since which kernel release, and what was done before.

Tables only. Nothing reads them to decide yet: they are where a model of an older kernel begins, and what tells a reader
which rules that kernel lacks. Releases are those of the mainline tree; a fix that stable kernels got too bears the first
release of which we know that it has it.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class RuleRow(NamedTuple):
    """One rule. ``where`` is ``module:function`` of netbpf.verifier, the place that decides it."""

    name: str
    since: str
    where: str
    before: str


RULES: Final[tuple[RuleRow, ...]] = tuple(
    RuleRow(*row)
    for row in (
        # structure
        ("every instruction is reachable and no jump leaves its function", "3.18", "cfg:check_cfg", ""),
        ("functions of the program", "4.16", "structure:add_subprog_and_kfunc", "an unknown call"),
        ("stack depth over chains of calls", "4.16", "stack_depth:check_max_stack_depth", "512 bytes of one function"),
        (
            "stack before a tail call is limited",
            "5.10",
            "stack_depth:_check_depth_from",
            "functions and tail calls exclude each other",
        ),
        ("back edges with CAP_BPF", "5.3", "cfg:_push_insn", "every back edge is refused"),
        ("a million walked instructions", "5.2", "check:do_check", "131072 from 4.14 on, 98304 from 4.12 on, less before"),
        ("8192 waiting paths", "5.2", "path:push_stack", "1024"),
        ("global functions one by one from BTF", "5.6", "check:do_check_subprogs", "all functions are walked in their callers"),
        ("may_goto", "6.9", "branch:_check_may_goto", "no such instruction"),
        ("dead ends of packet loads in functions", "6.18", "frames:leave_by_packet_load", "a load in a function never fails"),
        ("tail calls that succeed leave a function", "6.18", "frames:leave_by_tail_call", "a tail call always fails"),
        # values
        ("known bits (tnum)", "4.14", "tnum:tnum_add", "minimum, maximum and alignment"),
        ("signed and unsigned bounds apart", "4.14", "bounds:__reg64_deduce_bounds", "one minimum and maximum"),
        ("bounds of the low half", "5.7", "bounds:__reg32_deduce_bounds", "32-bit operations forget what was known"),
        ("comparisons of the low half", "5.1", "branch:check_cond_jmp_op", "no JMP32"),
        ("comparisons of two ranges", "6.8", "cond:regs_refine_cond_op", "one side has to be a constant"),
        ("low and whole bounds tell of each other", "6.8", "bounds:__reg_deduce_mixed_bounds", "from whole to low only"),
        ("signed bounds of products", "6.14", "scalar_ops:scalar_min_max_mul", "products of what may be negative are unknown"),
        ("bounds of sums that may wrap together", "6.17", "scalar_ops:scalar_min_max_add", "unknown where either end wraps"),
        ("bounds of a negation", "6.17", "alu:_check_neg", "unknown"),
        ("shifts by ranges", "6.9", "scalar_ops:is_safe_to_compute_dst_reg_range", "by constants only"),
        ("scalars linked by copying", "5.11", "branch:collect_linked_regs", "a comparison tells of one register"),
        ("links that stand constants apart", "6.11", "alu:_link_constant_delta", "an addition ends the link"),
        ("sign extension", "6.6", "regs:coerce_reg_to_size_sx", "no such instruction"),
        ("NULL of one pointer compared with another", "6.2", "branch:_lift_null_by_equality", "NULL by a constant only"),
        # memory
        ("spilled scalars keep their bounds", "5.3", "stack:_spill_scalar", "a spilled number is any number"),
        ("narrow spills", "5.16", "stack:_save_register", "eight bytes or nothing"),
        ("stored constants are known", "6.3", "stack:check_stack_write_fixed_off", "only zero is"),
        ("variable offsets into the stack", "5.12", "stack:check_stack_write_var_off", "for helpers only"),
        ("uninitialised stack may be read with CAP_PERFMON", "6.3", "stack:_check_readable", "it may not"),
        ("strict alignment on request", "4.12", "memory:check_ptr_alignment", "always by the machine's rule"),
        ("variable offsets into map values", "4.9", "memory:check_map_access", "constants only"),
        ("direct values of maps", "5.2", "immediates:_check_direct_value", "through a lookup"),
        ("values of frozen maps are constants", "5.5", "memory:direct_value", "any number"),
        ("maps that programs only read, or only write", "5.2", "memory:check_map_access_type", "all may be read and written"),
        ("a map's own fields", "5.9", "map_struct:check_ptr_to_map_access", "a map pointer is opaque"),
        ("fixed stack slots of calls that keep registers", "6.12", "stack:check_fastcall_stack_contract", "plain stack"),
        # calls
        ("maps in maps", "4.12", "calls:_return_map_value", "no such maps"),
        ("spin locks", "5.1", "args:_spin_lock", "plain bytes"),
        ("references", "4.20", "refs:check_resource_leak", "nothing to release"),
        ("callbacks", "5.13", "frames:push_callback_call", "no such helpers"),
        ("callbacks walked until nothing new comes", "6.7", "loops:find_prev_entry", "walked once"),
        ("dynptrs", "5.19", "dynptr:mark_stack_slots_dynptr", "no such helpers"),
        ("lookups with constant keys of arrays are not NULL", "6.14", "calls:_is_there", "every lookup may be NULL"),
        ("constant tail calls of known maps", "5.5", "calls:record_func_key", "any index"),
        # walk
        ("states are pruned", "3.18", "prune:is_state_visited", ""),
        ("infinite loops are found", "5.3", "prune:_check_infinite_loop", "there are no loops"),
        (
            "scalars that matter are compared exactly",
            "5.3",
            "precision:mark_chain_precision",
            "all are, and fewer states are pruned",
        ),
        ("precision through functions", "6.5", "backtrack:_back_pseudo_call", "all become precise at a call"),
        ("precision of loops' states", "6.17", "loops:propagate_backedges", "states in loops are compared exactly"),
        ("live registers are known before the walk", "6.15", "live_regs:compute_live_registers", "found by reading"),
        ("live slots by chain of calls", "6.18", "liveness:bpf_update_live_stack", "marked along the parents of a state"),
        # privilege
        ("CAP_BPF and CAP_PERFMON", "5.8", "env:Privileges", "CAP_SYS_ADMIN alone"),
        ("pointers do not leak", "4.4", "memory:is_pointer_value", "loading takes privileges"),
        ("pointer arithmetic is masked", "5.0", "sanitize:sanitize_val_alu", "only index masking of arrays"),
        ("mispredicted branches are walked", "5.13", "branch:_follow_predicted", "only what can happen is walked"),
        ("a barrier where speculation goes wrong", "6.17", "check:do_check", "the program is refused"),
    )
)
