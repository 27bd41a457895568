"""BPF_MAP_TYPE_LPM_TRIE: the longest stored prefix of a key. Its bytes::

    struct header { u32 root, free, fresh, n_entries, max_entries, node_size, value_off, max_nodes; u32 reserved[8]; };
    struct node {                                  // node i at 64 + i * node_size; node 0 does not exist
        u32 child[2];                              // by the first bit after this node's prefix; 0: none
        u32 prefixlen;
        u32 intermediate;                          // 1: made only to join two others, not a stored key
        u8  data[round_up(key_size - 4, 8)];       // zero padded
        u8  value[round_up(value_size, 8)];        // at value_off in the node
    };

``free`` is the first freed node (chained by child[0]), ``fresh`` the number of nodes handed out ever, up to ``max_nodes``. A key
is a u32 prefix length, then the bytes with the most significant bit first; every child's prefix is longer than, and begins
with, its parent's.
"""

from __future__ import annotations

import errno
from typing import Final

from netbpf.abi.maps import MapType
from netbpf.ints import U32_MAX, round_up
from netbpf.maps.base import BPF_ANY, BPF_EXIST, BPF_NOEXIST
from netbpf.maps.spec import MapSpec
from netbpf.maps.storage import MapBase

ROOT, FREE, FRESH, N_ENTRIES, MAX_ENTRIES, NODE_SIZE, VALUE_OFF, MAX_NODES = range(8)
NODES_OFF: Final = 64
DATA_AT: Final = 16
PREFIXLEN, INTERMEDIATE = 2, 3  # words of a node
MAX_BYTES: Final = 1 << 38  # of address space for one trie; beyond it updates get ENOMEM


class LpmTrieMap(MapBase):
    """A longest-prefix-match trie."""

    __slots__ = ("_data_size", "_max_nodes", "_max_prefixlen", "_node_size", "_value_at")
    map_type = MapType.LPM_TRIE

    def __init__(self, spec: MapSpec, n_cpus: int, map_id: int) -> None:
        self._data_size = spec.key_size - 4
        self._max_prefixlen = self._data_size * 8
        self._value_at = DATA_AT + round_up(self._data_size, 8)
        self._node_size = self._value_at + round_up(spec.value_size, 8)
        self._max_nodes = min(2 * spec.max_entries, MAX_BYTES // self._node_size, U32_MAX)
        super().__init__(spec, NODES_OFF + (self._max_nodes + 1) * self._node_size, n_cpus, map_id)
        self.u32[MAX_ENTRIES], self.u32[NODE_SIZE], self.u32[VALUE_OFF] = spec.max_entries, self._node_size, self._value_at
        self.u32[MAX_NODES] = self._max_nodes

    # --- nodes --------------------------------------------------------------------------------------------------------
    def _word(self, node: int) -> int:
        return (NODES_OFF + node * self._node_size) >> 2

    def _data(self, node: int) -> int:
        """The data bytes of a node as one big-endian number."""
        at = NODES_OFF + node * self._node_size + DATA_AT
        return int.from_bytes(self.memory[at : at + self._data_size], "big")

    def _bit(self, data: int, position: int) -> int:
        return data >> (self._max_prefixlen - 1 - position) & 1

    def _match(self, node: int, prefixlen: int, data: int) -> int:
        """How many leading bits a node's prefix and this one have in common."""
        differing = self._data(node) ^ data
        common = self._max_prefixlen - differing.bit_length()
        return min(common, prefixlen, self.u32[self._word(node) + PREFIXLEN])

    def _take(self) -> int:
        """An unused node, or 0 when there is no room."""
        u32, node = self.u32, self.u32[FREE]
        if node:
            u32[FREE] = u32[self._word(node)]
            return node
        if u32[FRESH] == self._max_nodes:
            return 0
        u32[FRESH] += 1
        return u32[FRESH]

    def _give(self, node: int) -> None:
        at = self._word(node)
        self.u32[at] = self.u32[FREE]
        self.u32[FREE] = node

    def _fill(self, node: int, prefixlen: int, data: int, value: bytes | None) -> int:
        """Write a childless node, intermediate without a value; its first word."""
        at = self._word(node)
        u32 = self.u32
        u32[at] = u32[at + 1] = 0
        u32[at + PREFIXLEN], u32[at + INTERMEDIATE] = prefixlen, value is None
        start = (at << 2) + DATA_AT
        self.memory[start : start + self._data_size] = data.to_bytes(self._data_size, "big")
        if value is not None:
            start = (at << 2) + self._value_at
            self.memory[start : start + len(value)] = value
        return at

    def _split_key(self, key: bytes) -> tuple[int, int]:
        return int.from_bytes(key[:4], "little"), int.from_bytes(key[4:], "big")

    def _key_of(self, node: int) -> bytes:
        at = self._word(node)
        start = (at << 2) + DATA_AT
        return int(self.u32[at + PREFIXLEN]).to_bytes(4, "little") + self.memory[start : start + self._data_size]

    def _descend(self, prefixlen: int, data: int) -> tuple[list[int], int]:
        """The slots (word indexes) from the root to where this prefix belongs, and how many bits match the node in the last one.

        The walk ends at an empty slot, at a node that does not match in full, or at the node of this very length.
        """
        u32, slots, matched = self.u32, [ROOT], 0
        while node := u32[slots[-1]]:
            matched = self._match(node, prefixlen, data)
            length = u32[self._word(node) + PREFIXLEN]
            if matched != length or length == prefixlen:
                break
            slots.append(self._word(node) + self._bit(data, length))
        return slots, matched

    # --- operations ---------------------------------------------------------------------------------------------------
    def lookup(self, key: bytes, cpu: int = 0) -> int:
        prefixlen, data = self._split_key(key)
        if prefixlen > self._max_prefixlen:
            return -1
        u32, node, found = self.u32, self.u32[ROOT], 0
        while node:
            at = self._word(node)
            length = u32[at + PREFIXLEN]
            matched = self._match(node, prefixlen, data)
            if matched < length:
                break
            if not u32[at + INTERMEDIATE]:
                found = node
            if length == self._max_prefixlen:
                break
            node = u32[at + self._bit(data, length)]
        return NODES_OFF + found * self._node_size + self._value_at if found else -1

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY, cpu: int = 0) -> int:
        prefixlen, data = self._split_key(key)
        if flags > BPF_EXIST or prefixlen > self._max_prefixlen:
            return -errno.EINVAL
        slots, matched = self._descend(prefixlen, data)
        slot = slots[-1]
        node = self.u32[slot]
        at = self._word(node)
        same = bool(node) and self.u32[at + PREFIXLEN] == matched
        if same and not self.u32[at + INTERMEDIATE]:
            return -errno.EEXIST if flags == BPF_NOEXIST else self._replace(slot, prefixlen, data, value)
        if flags == BPF_EXIST:
            return -errno.ENOENT
        if self.u32[N_ENTRIES] == self.u32[MAX_ENTRIES]:
            return -errno.ENOSPC
        if same:
            err = self._replace(slot, prefixlen, data, value)
        else:
            err = self._attach(slot, matched, prefixlen, data, value)
        self.u32[N_ENTRIES] += not err
        return err

    def _replace(self, slot: int, prefixlen: int, data: int, value: bytes) -> int:
        """Put a new node with the old one's children in its place; a pointer to the old value stays valid."""
        u32, old, new = self.u32, self.u32[slot], self._take()
        if not new:
            return -errno.ENOMEM
        at, before = self._fill(new, prefixlen, data, value), self._word(old)
        u32[at], u32[at + 1] = u32[before], u32[before + 1]
        u32[slot] = new
        self._give(old)
        return 0

    def _attach(self, slot: int, matched: int, prefixlen: int, data: int, value: bytes) -> int:
        """Add a node where none of this prefix is: in an empty slot, above the node there, or beside it under a joining one."""
        u32, node, new = self.u32, self.u32[slot], self._take()
        if not new:
            return -errno.ENOMEM
        at = self._fill(new, prefixlen, data, value)
        if node and matched == prefixlen:
            u32[at + self._bit(self._data(node), matched)] = node
        elif node:
            joint = self._take()
            if not joint:
                self._give(new)
                return -errno.ENOMEM
            above = self._fill(joint, matched, self._data(node), None)
            side = self._bit(data, matched)
            u32[above + side], u32[above + 1 - side] = new, node
            new = joint
        u32[slot] = new
        return 0

    def delete(self, key: bytes) -> int:
        prefixlen, data = self._split_key(key)
        if prefixlen > self._max_prefixlen:
            return -errno.EINVAL
        u32 = self.u32
        slots, _ = self._descend(prefixlen, data)
        node = u32[slots[-1]]
        at = self._word(node)
        matched = self._match(node, prefixlen, data) if node else 0
        if not node or u32[at + PREFIXLEN] != prefixlen or matched != prefixlen or u32[at + INTERMEDIATE]:
            return -errno.ENOENT
        u32[N_ENTRIES] -= 1
        if u32[at] and u32[at + 1]:
            u32[at + INTERMEDIATE] = 1
            return 0
        self._cut(slots, node)
        return 0

    def _cut(self, slots: list[int], node: int) -> None:
        """Take out a node with at most one child. Childless under a joining node: the joining node goes with it."""
        u32, at = self.u32, self._word(node)
        only = u32[at] or u32[at + 1]
        parent = u32[slots[-2]] if len(slots) > 1 else 0
        if not only and parent and u32[self._word(parent) + INTERMEDIATE]:
            u32[slots[-2]] = u32[slots[-1] ^ 1]  # nodes begin at even words, so a slot's sibling differs in the last bit
            self._give(parent)
        else:
            u32[slots[-1]] = only
        self._give(node)

    # --- order --------------------------------------------------------------------------------------------------------
    def next_key(self, key: bytes | None) -> bytes | None:
        """In postorder: more specific prefixes before less specific ones. A key that is not there gives the first."""
        if key is not None:
            self.check_key(key)
        root = self.u32[ROOT]
        if not root:
            return None
        node = self._after(key) if key is not None else self._leftmost(root)
        return self._key_of(node) if node else None

    def _after(self, key: bytes) -> int:
        """The node that follows a key's in postorder, 0 after the last; the first when the key is not there."""
        u32, root = self.u32, self.u32[ROOT]
        prefixlen, data = self._split_key(key)
        if prefixlen > self._max_prefixlen:
            return self._leftmost(root)
        slots, matched = self._descend(prefixlen, data)
        node = u32[slots[-1]]
        at = self._word(node)
        if not node or u32[at + PREFIXLEN] != matched or u32[at + INTERMEDIATE]:
            return self._leftmost(root)
        for above, slot in zip(slots[-2::-1], slots[:0:-1], strict=True):
            parent = u32[above]
            at = self._word(parent)
            if slot == at and u32[at + 1]:
                return self._leftmost(u32[at + 1])
            if not u32[at + INTERMEDIATE]:
                return parent
        return 0

    def _leftmost(self, node: int) -> int:
        """The first stored node in postorder of a subtree (a joining node always has two children)."""
        u32, found = self.u32, 0
        while node:
            at = self._word(node)
            if not u32[at + INTERMEDIATE]:
                found = node
            node = u32[at] or (0 if u32[at + INTERMEDIATE] else u32[at + 1])
        return found
