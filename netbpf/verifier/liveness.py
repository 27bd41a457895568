"""Which stack slots may still be read from an instruction on, told apart by the chain of calls that led there.

Reads and writes are reported by the walk as it meets them (``bpf_mark_stack_read/write``); what they mean for the instructions
before them is computed at each path's end (``bpf_update_live_stack``). A slot that no report makes live is dead, so it is
cleared from a checkpoint before comparison.
"""

from __future__ import annotations

from netbpf.ints import U64_MAX
from netbpf.verifier.backtrack import fmt_stack_mask
from netbpf.verifier.env import BPF_LOG_LEVEL2, VerifierEnv
from netbpf.verifier.log import verbose
from netbpf.verifier.state import VerifierState
from netbpf.verifier.structure import find_containing_subprog, subprog_end


class FrameMasks:
    """What one function, called by one chain of calls, does to one frame's slots: a mask per instruction, four times.

    ``may_read`` and ``must_write``: by the instruction itself. ``live_before``: may be read from it on before being
    written. ``must_write_acc``: written by it or after it on every way out.
    """

    __slots__ = ("may_read", "must_write", "must_write_acc", "live_before")

    def __init__(self, n: int) -> None:
        self.may_read, self.must_write = [0] * n, [0] * n
        self.must_write_acc, self.live_before = [0] * n, [0] * n


class FuncInstance:
    """A function as called by one chain of calls. ``callsites[i]`` is where frame *i* called frame *i+1*."""

    __slots__ = (
        "callsites",
        "start",
        "subprog",
        "insn_cnt",
        "frames",
        "must_write_set",
        "updated",
        "must_write_dropped",
        "outer",
    )

    def __init__(self, env: VerifierEnv, callsites: tuple[int, ...], start: int, outer: FuncInstance | None) -> None:
        self.callsites, self.start, self.outer = callsites, start, outer
        self.subprog = find_containing_subprog(env, start)
        self.insn_cnt = subprog_end(env, self.subprog) - start
        self.frames: list[FrameMasks | None] = [None] * (len(callsites) + 1)
        self.must_write_set = bytearray(self.insn_cnt)
        self.updated = self.must_write_dropped = False

    @property
    def curframe(self) -> int:
        return len(self.callsites)

    def masks(self, frame: int) -> FrameMasks:
        """The masks of ``frame``, made when first needed."""
        masks = self.frames[frame]
        if masks is None:
            masks = self.frames[frame] = FrameMasks(self.insn_cnt)
        return masks

    def mark_read(self, frame: int, insn_idx: int, mask: int) -> None:
        masks, i = self.masks(frame), insn_idx - self.start
        new = masks.may_read[i] | mask
        if new != masks.may_read[i]:
            if new | masks.live_before[i] != masks.live_before[i]:
                self.updated = True
            masks.may_read[i] = new

    def commit_writes(self, insn_idx: int, writes: dict[int, int]) -> None:
        """``writes`` (frame -> slots) is all that one visit of an instruction wrote; what every visit writes is kept."""
        i = insn_idx - self.start
        seen = self.must_write_set[i]
        for frame in range(self.curframe + 1):
            mask = writes.get(frame, 0)
            if not mask and (not seen or self.frames[frame] is None):
                continue
            masks = self.masks(frame)
            old = masks.must_write[i]
            if seen:
                mask &= old
            if mask != old:
                masks.must_write[i] = mask
                self.updated = True
                if old & ~mask:
                    self.must_write_dropped = True
        self.must_write_set[i] = 1


class StackLiveness:
    """env.liveness: the instances met so far, and the marks of the instruction being walked."""

    __slots__ = ("instances", "cur_instance", "write_insn_idx", "writes")

    def __init__(self) -> None:
        self.instances: dict[tuple[tuple[int, ...], int], FuncInstance] = {}
        self.cur_instance: FuncInstance | None = None
        self.write_insn_idx = 0
        self.writes: dict[int, int] = {}

    def lookup(self, env: VerifierEnv, st: VerifierState, frameno: int) -> FuncInstance:
        """The instance of frame ``frameno`` of ``st``, made when first met."""
        callsites = tuple(st.frame[i + 1].callsite for i in range(frameno))
        start = env.subprogs[st.frame[frameno].subprogno].start
        key = (callsites, start)
        instance = self.instances.get(key)
        if instance is None:
            outer = self.lookup(env, st, frameno - 1) if frameno else None
            instance = self.instances[key] = FuncInstance(env, callsites, start, outer)
        return instance

    def current(self, env: VerifierEnv) -> FuncInstance:
        instance = self.cur_instance
        if instance is None:
            st = env.cur_state
            assert st is not None
            instance = self.cur_instance = self.lookup(env, st, st.curframe)
        return instance


def bpf_stack_liveness_init(env: VerifierEnv) -> None:
    env.liveness = StackLiveness()


def bpf_mark_stack_read(env: VerifierEnv, frameno: int, insn_idx: int, mask: int) -> None:
    """The instruction may read the slots of ``mask`` of frame ``frameno``."""
    env.liveness.current(env).mark_read(frameno, insn_idx, mask)


def bpf_reset_stack_write_marks(env: VerifierEnv, insn_idx: int) -> None:
    """A visit of ``insn_idx`` begins: nothing written yet. The instance is the one this instruction stands in."""
    liveness = env.liveness
    liveness.current(env)
    liveness.write_insn_idx = insn_idx
    if liveness.writes:
        liveness.writes = {}


def bpf_mark_stack_write(env: VerifierEnv, frameno: int, mask: int) -> None:
    """The instruction overwrites all eight bytes of the slots of ``mask`` of frame ``frameno``."""
    writes = env.liveness.writes
    writes[frameno] = writes.get(frameno, 0) | mask


def bpf_commit_stack_write_marks(env: VerifierEnv) -> None:
    """The visit of an instruction ends."""
    liveness = env.liveness
    instance = liveness.cur_instance
    if instance is None:
        return
    i = liveness.write_insn_idx - instance.start
    if liveness.writes or instance.must_write_set[i]:
        instance.commit_writes(liveness.write_insn_idx, liveness.writes)
    else:
        instance.must_write_set[i] = 1


def bpf_reset_live_stack_callchain(env: VerifierEnv) -> None:
    """Another function is current now."""
    env.liveness.cur_instance = None


def _fmt_callchain(instance: FuncInstance) -> str:
    return "(" + ",".join(str(i) for i in (*instance.callsites, instance.start)) + ")"


def _log_mask_change(env: VerifierEnv, instance: FuncInstance, what: str, frame: int, idx: int, old: int, new: int) -> None:
    if old == new:
        return
    added, dropped = new & ~old, old & ~new
    text = f"{_fmt_callchain(instance)} frame {frame} insn {idx} "
    if added:
        text += f"+{what} {fmt_stack_mask(added)} "
    if dropped:
        text += f"-{what} {fmt_stack_mask(dropped)}"
    verbose(env, text + "\n")


def _log_update(env: VerifierEnv, instance: FuncInstance, frame: int, idx: int, new: tuple[int, int]) -> None:
    masks, i = instance.masks(frame), idx - instance.start
    if masks.may_read[i] or masks.must_write[i] or i == 0 or env.insn_aux[idx].prune_point:
        _log_mask_change(env, instance, "live", frame, idx, masks.live_before[i], new[0])
        _log_mask_change(env, instance, "written", frame, idx, masks.must_write_acc[i], new[1])


def _pass_over(env: VerifierEnv, instance: FuncInstance, frame: int, order: list[int], level_2: bool) -> bool:
    """One pass of the backwards fixpoint over a function; True when a mask changed."""
    masks, start, successors = instance.masks(frame), instance.start, env.successors
    live, written, may_read, must_write = masks.live_before, masks.must_write_acc, masks.may_read, masks.must_write
    changed = False
    for idx in order:
        following = successors[idx]
        if not following:
            continue
        i = idx - start
        after, acc = 0, U64_MAX
        for s in following:
            after |= live[s - start]
            acc &= written[s - start]
        acc |= must_write[i]
        before = (after & ~must_write[i]) | may_read[i]
        if before != live[i] or acc != written[i]:
            changed = True
            if level_2:
                _log_update(env, instance, frame, idx, (before, acc))
            live[i], written[i] = before, acc
    return changed


def _propagate_to_outer(env: VerifierEnv, instance: FuncInstance) -> None:
    """What a callee does to its callers' frames, the call does."""
    outer = instance.outer
    assert outer is not None
    callsite = instance.callsites[-1]
    writes: dict[int, int] = {}
    for frame in range(instance.curframe):
        masks = instance.frames[frame]
        if masks is not None:
            if masks.must_write_acc[0]:
                writes[frame] = masks.must_write_acc[0]
            outer.mark_read(frame, callsite, masks.live_before[0])
    outer.commit_writes(callsite, writes)


def _update_instance(env: VerifierEnv, instance: FuncInstance) -> None:
    level_2 = bool(env.log_level & BPF_LOG_LEVEL2)
    first = env.subprogs[instance.subprog].postorder_start
    end = env.subprogs[instance.subprog + 1].postorder_start if instance.subprog + 1 < len(env.subprogs) else len(env.postorder)
    order = env.postorder[first:end]
    if instance.must_write_dropped:
        for masks in instance.frames:
            if masks is not None:
                masks.must_write_acc = [0] * instance.insn_cnt
    iterations, changed = 0, True
    while changed:
        iterations += 1
        changed = False
        for frame, masks in enumerate(instance.frames):
            if masks is not None and _pass_over(env, instance, frame, order, level_2):
                changed = True
    if level_2:
        verbose(env, f"{_fmt_callchain(instance)} live stack update done in {iterations} iterations\n")
    if instance.outer is not None:
        _propagate_to_outer(env, instance)
    instance.updated = instance.must_write_dropped = False


def bpf_update_live_stack(env: VerifierEnv) -> None:
    """At a path's end: what its reads and writes mean for the instructions before them, innermost function first."""
    liveness, st = env.liveness, env.cur_state
    assert st is not None
    liveness.cur_instance = None
    for frameno in range(st.curframe, -1, -1):
        instance = liveness.lookup(env, st, frameno)
        if instance.updated:
            _update_instance(env, instance)


def live_stack_mask(env: VerifierEnv, st: VerifierState, frameno: int) -> int:
    """Slots of frame ``frameno`` that may be read from ``st`` on: in its current function, or in a caller after it returns."""
    instance = env.liveness.lookup(env, st, st.curframe)
    mask = _live_at(instance, st.insn_idx, frameno)
    for i in range(frameno, st.curframe):
        callsite = instance.callsites[i]
        outer = env.liveness.lookup(env, st, i)
        mask |= _live_at(outer, callsite if env.insn_aux[callsite].calls_callback else callsite + 1, frameno)
    return mask


def _live_at(instance: FuncInstance, insn_idx: int, frameno: int) -> int:
    masks = instance.frames[frameno]
    return masks.live_before[insn_idx - instance.start] if masks is not None else 0
