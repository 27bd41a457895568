#!/usr/bin/env bash
# Builds the objects beside their sources, or into the directory given. The ones kept here were made by clang 14.0.6.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
out="${1:-$here}"
cd "$here"
mkdir -p "$out/types"
for source in *.c types/*.c; do
    flags=(-g)
    [ "$source" = legacy_maps.c ] && flags=() # struct bpf_map_def needs no BTF: this one shows an object without
    "${CLANG:-clang}" -target bpf -O2 -mcpu=v3 -Wall "${flags[@]}" -fdebug-compilation-dir=. \
        -I"/usr/include/$(uname -m)-linux-gnu" -c "$source" -o "$out/${source%.c}.o"
    # the DWARF is for debuggers; BTF stays
    "${STRIP:-llvm-strip}" -g "$out/${source%.c}.o"
done
