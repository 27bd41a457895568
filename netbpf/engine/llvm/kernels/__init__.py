"""Map operations that are too long to write as LLVM text: a small language that looks like Python, see ``kernels.language``.

Each module mirrors one of ``netbpf.maps`` on the same bytes. They are compiled, not run.
"""
