"""The operations of ``maps.lpm_trie``. A slot is the address of a u32 that names a node: the root's, or a node's child."""

# ruff: noqa: F821  (the numbers of a map are known when it is compiled)
# mypy: disable-error-code="name-defined, no-any-return"

from __future__ import annotations

from netbpf.engine.llvm.kernels.language import copy, leading_zeros, u8, u32

FREE = 4
FRESH = 8
N_ENTRIES = 12
NODES_OFF = 64
DATA_AT = 16
PREFIXLEN = 8
INTERMEDIATE = 12
ENOENT = 2
ENOMEM = 12
EEXIST = 17
EINVAL = 22
ENOSPC = 28


def node_at(m: int, node: int) -> int:
    return m + NODES_OFF + node * NODE_SIZE


def bit(data: int, position: int) -> int:
    return (u8[data + position // 8] >> (7 - position % 8)) & 1


def match(node: int, prefixlen: int, data: int) -> int:
    """How many leading bits the node's prefix and this one have in common."""
    most = u32[node + PREFIXLEN]
    if prefixlen < most:
        most = prefixlen
    at = 0
    while at * 8 < most:
        differing = u8[node + DATA_AT + at] ^ u8[data + at]
        if differing:
            common = at * 8 + leading_zeros(differing) - 56
            return common if common < most else most
        at += 1
    return most


def trie_lookup(m: int, key: int) -> int:
    prefixlen = u32[key]
    if prefixlen > MAX_PREFIXLEN:
        return 0
    data = key + 4
    found = 0
    node = u32[m]
    while node:
        at = node_at(m, node)
        length = u32[at + PREFIXLEN]
        if match(at, prefixlen, data) < length:
            break
        if not u32[at + INTERMEDIATE]:
            found = at
        if length == MAX_PREFIXLEN:
            break
        node = u32[at + 4 * bit(data, length)]
    return found + VALUE_AT if found else 0


def descend(m: int, prefixlen: int, data: int, above: int) -> int:
    """The slot where this prefix belongs; with ``above`` the slot before it, 0 where it is the root's."""
    before = 0
    slot = m
    while u32[slot]:
        at = node_at(m, u32[slot])
        length = u32[at + PREFIXLEN]
        if match(at, prefixlen, data) != length or length == prefixlen:
            break
        before = slot
        slot = at + 4 * bit(data, length)
    return before if above else slot


def take(m: int) -> int:
    """An unused node's number, or 0."""
    node = u32[m + FREE]
    if node:
        u32[m + FREE] = u32[node_at(m, node)]
        return node
    if u32[m + FRESH] == MAX_NODES:
        return 0
    u32[m + FRESH] = u32[m + FRESH] + 1
    return u32[m + FRESH]


def give(m: int, node: int) -> None:
    u32[node_at(m, node)] = u32[m + FREE]
    u32[m + FREE] = node


def fill(at: int, prefixlen: int, data: int, value: int) -> None:
    """Write a childless node; without a value one that only joins."""
    u32[at] = 0
    u32[at + 4] = 0
    u32[at + PREFIXLEN] = prefixlen
    u32[at + INTERMEDIATE] = 0 if value else 1
    copy(at + DATA_AT, data, DATA_SIZE)
    if value:
        copy(at + VALUE_AT, value, VALUE_SIZE)


def trie_update(m: int, key: int, value: int, flags: int) -> int:
    prefixlen = u32[key]
    if flags > 2 or prefixlen > MAX_PREFIXLEN:
        return -EINVAL
    data = key + 4
    slot = descend(m, prefixlen, data, 0)
    node = u32[slot]
    at = node_at(m, node)
    matched = match(at, prefixlen, data) if node else 0
    same = node and u32[at + PREFIXLEN] == matched
    if same and not u32[at + INTERMEDIATE]:
        return -EEXIST if flags == 1 else replace(m, slot, prefixlen, data, value)
    if flags == 2:
        return -ENOENT
    if u32[m + N_ENTRIES] == MAX_ENTRIES:
        return -ENOSPC
    err = replace(m, slot, prefixlen, data, value) if same else attach(m, slot, matched, prefixlen, data, value)
    if not err:
        u32[m + N_ENTRIES] = u32[m + N_ENTRIES] + 1
    return err


def replace(m: int, slot: int, prefixlen: int, data: int, value: int) -> int:
    old = u32[slot]
    new = take(m)
    if not new:
        return -ENOMEM
    at = node_at(m, new)
    before = node_at(m, old)
    fill(at, prefixlen, data, value)
    u32[at] = u32[before]
    u32[at + 4] = u32[before + 4]
    u32[slot] = new
    give(m, old)
    return 0


def attach(m: int, slot: int, matched: int, prefixlen: int, data: int, value: int) -> int:
    node = u32[slot]
    new = take(m)
    if not new:
        return -ENOMEM
    at = node_at(m, new)
    there = node_at(m, node)
    fill(at, prefixlen, data, value)
    if node and matched == prefixlen:
        u32[at + 4 * bit(there + DATA_AT, matched)] = node
    elif node:
        joint = take(m)
        if not joint:
            give(m, new)
            return -ENOMEM
        above = node_at(m, joint)
        fill(above, matched, there + DATA_AT, 0)
        side = 4 * bit(data, matched)
        u32[above + side] = new
        u32[above + 4 - side] = node
        new = joint
    u32[slot] = new
    return 0


def trie_delete(m: int, key: int) -> int:
    prefixlen = u32[key]
    if prefixlen > MAX_PREFIXLEN:
        return -EINVAL
    data = key + 4
    slot = descend(m, prefixlen, data, 0)
    node = u32[slot]
    at = node_at(m, node)
    if not node:
        return -ENOENT
    if u32[at + PREFIXLEN] != prefixlen or match(at, prefixlen, data) != prefixlen or u32[at + INTERMEDIATE]:
        return -ENOENT
    u32[m + N_ENTRIES] = u32[m + N_ENTRIES] - 1
    if u32[at] and u32[at + 4]:
        u32[at + INTERMEDIATE] = 1
        return 0
    cut(m, slot, descend(m, prefixlen, data, 1), node)
    return 0


def cut(m: int, slot: int, above: int, node: int) -> None:
    """Take out a node with at most one child, and a joining node that would be left with one."""
    at = node_at(m, node)
    only = u32[at] if u32[at] else u32[at + 4]
    parent = u32[above] if above else 0
    if not only and parent and u32[node_at(m, parent) + INTERMEDIATE]:
        u32[above] = u32[((slot - m) ^ 4) + m]
        give(m, parent)
    else:
        u32[slot] = only
    give(m, node)
