# Sourced by the scripts beside it: a virtual environment in .venv with pinned packages, made once and again when a pin changes.
#   netbpf_setup REQUIREMENTS...   installs those files of requirements/ and netbpf itself, and sets PY
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

find_python() {
    local p
    for p in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$p" ] && command -v "$p" >/dev/null 2>&1 || continue
        "$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$p"; return 0; }
    done
    echo "netbpf needs Python 3.11 or newer; none was found (set PYTHON to one)" >&2
    return 1
}

netbpf_setup() {
    local python stamp wanted args=() f
    PY=$root/.venv/bin/python
    for f in "$@"; do args+=(-r "$root/requirements/$f.txt"); done
    wanted="$(cat "$root/pyproject.toml" "$root"/requirements/*.txt | cksum) $*"
    stamp=$root/.venv/netbpf-$(echo "$*" | tr ' ' '-')
    [ -x "$PY" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return 0
    python=$(find_python) || return 69
    echo "setting up $root/.venv (once) ..." >&2
    if [ ! -x "$PY" ]; then
        "$python" -m venv "$root/.venv" || { echo "could not make a virtual environment; on Debian: apt-get install python3-venv" >&2; return 69; }
    fi
    PIP_DISABLE_PIP_VERSION_CHECK=1 "$PY" -m pip install --quiet "${args[@]}" || return 69
    PIP_DISABLE_PIP_VERSION_CHECK=1 "$PY" -m pip install --quiet --no-deps -e "$root" || return 69
    "$PY" -m compileall -q "$root/netbpf" "$root/scripts" || true # the first start is as quick as the second; a tree that can't be written is no error
    echo "$wanted" > "$stamp"
}
