"""The native engine: program, maps and packet loop compiled by LLVM into one function.

The only folder that imports llvmlite, and only to compile: code that is in the cache is mapped without it.
"""
