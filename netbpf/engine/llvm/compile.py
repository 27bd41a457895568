"""LLVM text -> object file bytes for this machine. The only module that imports llvmlite."""

from __future__ import annotations

from functools import cache

from llvmlite import binding as llvm

from netbpf.engine.llvm.effort import BRISK, HASTY, THOROUGH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OPT_LEVEL = 1  # the next one takes half as long again, and what it makes is no faster
BRISK_PASSES = (
    "dead_arg_elimination", "always_inliner", "global_dead_code_eliminate", "sroa", "simplify_cfg", "instruction_combine",
    "simplify_cfg",
)  # fmt: skip


@cache
def target_machine(level: int) -> Any:
    """LLVM made ready for this machine."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    # no host features: code for the family runs on every machine of it, so a cache may be shared, and measures the same
    return target.create_target_machine(opt=level, reloc="pic", codemodel="small")


def compile_object(text: str, *, effort: int = THOROUGH) -> bytes:
    """Parse, verify, optimise and emit. Raises RuntimeError with LLVM's words where the text is not valid."""
    level = 0 if effort == HASTY else OPT_LEVEL
    machine = target_machine(level)
    module = llvm.parse_assembly(text)
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=level)
    builder = llvm.create_pass_builder(machine, options)
    passes = _brisk_passes() if effort == BRISK else builder.getModulePassManager()
    passes.run(module, builder)
    return bytes(machine.emit_object(module))


def _brisk_passes() -> Any:
    passes = llvm.create_new_module_pass_manager()
    for name in BRISK_PASSES:
        getattr(passes, f"add_{name}_pass")()
    return passes
