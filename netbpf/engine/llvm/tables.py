"""The hash table (``maps.table``) as LLVM functions, specialised to one map; what they are is in ``maps``."""

from __future__ import annotations

import errno
from typing import Any

from netbpf.engine.llvm.ir import Function, return_address, signed_text
from netbpf.engine.llvm.shape import LRU_TABLES, PER_CPU
from netbpf.ints import round_up
from netbpf.maps.jhash import FOLD_MULTIPLIER, JHASH_INITVAL
from netbpf.maps.lru_table import REF_OFF
from netbpf.maps.table import (
    BUCKETS_OFF,
    COUNT,
    CPU_STRIDE,
    ELEMS_OFF,
    FREE,
    FRESH,
    HASH_FOLD,
    HASH_KIND,
    MAX_ENTRIES,
    N_BUCKETS,
    SEED,
    SPARE_OFF,
    VALUE_OFF,
)


def table_prefetches(index: int, m: Any) -> str:
    """``void @near(ptr m, i32 hash)`` has a bucket brought in, ``void @reach(ptr m, i32 hash)`` the element that it names."""
    return Table(str(index), m, shared=False).prefetch_text()


def table_functions(index: int, m: Any) -> str:
    """``@hash`` and ``@find`` of a table."""
    return Table(str(index), m, shared=False).lookup_text()


class Table:
    """HASH and PERCPU_HASH, and what their LRU kinds have in common with them: the table of maps.table. With ``shared`` code for
    all like ``m`` but for what their headers say."""

    def __init__(self, suffix: str, m: Any, shared: bool) -> None:
        self.i, self.m, self.spec, self.shared = suffix, m, m.spec, shared
        self.per_cpu, self.is_lru = m.spec.map_type in PER_CPU, m.spec.map_type in LRU_TABLES

    def _header(self, f: Function, bits: int, word: int) -> str:
        """The header's u32 or u64 of this number."""
        if self.shared:
            return f.load(bits, f.gep("%m", word * bits // 8), bits // 8)
        return signed_text(int((self.m.u32 if bits == 32 else self.m.u64)[word]), bits)

    def text(self) -> str:
        if self.is_lru:
            return "\n".join([self._find(), self._lookup(), self._unlink()])
        return "\n".join([self._find(), self._lookup(), self._update_entry(), self._update(), self._unlink(), self._delete()])

    def lookup_text(self) -> str:
        return self._find()

    def prefetch_text(self) -> str:
        near = Function(f"define internal void @near{self.i}(ptr %m, i32 %hash) alwaysinline nounwind")
        near.prefetch(self._bucket(near, "%hash"))
        near.ret("void")
        reach = Function(f"define internal void @reach{self.i}(ptr %m, i32 %hash) alwaysinline nounwind")
        e = reach.load(32, self._bucket(reach, "%hash"), 4)
        element, value = self._element(reach, e), self._value(reach, e, "0")
        reach.prefetch(element)
        reach.prefetch(value)
        reach.ret("void")
        return "\n".join([near.text(), reach.text()])

    def walk_text(self) -> str:
        """``@chain``: the first element of the buckets from the number at ``at`` on, which goes on behind its bucket, or 0.
        ``@after``: the next element of its chain, or 0. ``@key``, ``@value``: an element's addresses."""
        return "\n".join([self._chain(), *self._parts()])

    def _chain(self) -> str:
        f = Function(f"define internal i64 @chain{self.i}(ptr %m, ptr %at) nounwind")
        f.label("loop")
        bucket = f.load(64, "%at", 8)
        f.cond(f.test("ult", bucket, f.zext(self._header(f, 32, N_BUCKETS), 32)), "look", "end")
        f.label("look")
        f.store(64, f.math("add", bucket, 1), "%at", 8)
        first = f.zext(f.load(32, self._bucket(f, f.trunc(bucket, 32)), 4), 32)
        f.cond(f.test("eq", first, 0), "loop", "found")
        f.label("found")
        f.ret(f"i64 {first}")
        f.label("end")
        f.ret("i64 0")
        return f.text()

    def _parts(self) -> list[str]:
        head = "(ptr %m, i64 %e) alwaysinline nounwind"
        after, key = (Function(f"define internal i64 @{name}{self.i}{head}") for name in ("after", "key"))
        after.ret(f"i64 {after.zext(after.load(32, self._element(after, after.trunc('%e', 32)), 8), 32)}")
        place = key.gep(self._element(key, key.trunc("%e", 32)), self.m.key_at)
        key.ret(f"i64 {key.op(f'ptrtoint ptr {place} to i64')}")
        value = Function(f"define internal i64 @value{self.i}(ptr %m, i64 %e, i64 %cpu) alwaysinline nounwind")
        place = self._value(value, value.trunc("%e", 32), "%cpu")
        value.ret(f"i64 {value.op(f'ptrtoint ptr {place} to i64')}")
        return [f.text() for f in (after, key, value)]

    # --- key hashing and comparing -----------------------------------------------------------------------------------
    def _pieces(self) -> list[tuple[int, int]]:
        """(offset, bits) loads that cover the key, widest first within each 8 bytes."""
        out, at, left = [], 0, self.spec.key_size
        for size in (8, 4, 2, 1):
            while left >= size:
                out.append((at, 8 * size))
                at, left = at + size, left - size
        return out

    def _words(self, f: Function) -> list[str]:
        """The key as little-endian 64-bit words, the last padded with zeroes."""
        words: list[str] = ["0"] * (round_up(self.spec.key_size, 8) // 8)
        for at, bits in self._pieces():
            part = f.zext(f.load(bits, f.gep("%key", at)), bits)
            if at % 8:
                part = f.op(f"shl i64 {part}, {8 * (at % 8)}")
            words[at // 8] = part if words[at // 8] == "0" else f.op(f"or i64 {words[at // 8]}, {part}")
        return words

    def _hash(self, f: Function) -> str:
        """The key's 32-bit hash."""
        seed = self._header(f, 32, SEED)
        if self.m.u32[HASH_KIND] == HASH_FOLD:
            return self._fold(f, seed)
        return self._jhash(f, seed)

    def _fold(self, f: Function, seed: str) -> str:
        h = f.math("mul", f.zext(seed, 32), signed_text(FOLD_MULTIPLIER, 64))
        for word in self._words(f):
            wide = f.op(f"zext i64 {f.op(f'xor i64 {word}, {h}')} to i128")
            product = f.op(f"mul i128 {wide}, {FOLD_MULTIPLIER}")
            low = f.op(f"trunc i128 {product} to i64")
            high = f.op(f"trunc i128 {f.op(f'lshr i128 {product}, 64')} to i64")
            h = f.op(f"xor i64 {low}, {high}")
        return f.op(f"trunc i64 {f.op(f'xor i64 {h}, ' + f.op(f'lshr i64 {h}, 32'))} to i32")

    def _jhash(self, f: Function, seed: str) -> str:
        size = self.spec.key_size
        start = f.op(f"add i32 {seed}, {signed_text(JHASH_INITVAL + size, 32)}")
        halves = []
        for word in self._words(f):
            halves += [f.trunc(word, 32), f.trunc(f.op(f"lshr i64 {word}, 32"), 32)]
        halves += ["0"] * 3
        a = b = c = start
        at = 0
        while size - at > 12:
            a, b, c = (f.op(f"add i32 {x}, {halves[at // 4 + k]}") for k, x in enumerate((a, b, c)))
            a, b, c = _jhash_mix(f, a, b, c)
            at += 12
        a, b, c = (f.op(f"add i32 {x}, {halves[at // 4 + k]}") for k, x in enumerate((a, b, c)))
        return _jhash_final(f, a, b, c)

    def _same_key(self, f: Function, element: str) -> str:
        """i1: whether the element's key is %key."""
        differs = ""
        for at, bits in self._pieces():
            mine = f.load(bits, f.gep("%key", at))
            theirs = f.load(bits, f.gep(element, self.m.key_at + at), min(bits // 8, 8))
            d = f.zext(f.op(f"xor i{bits} {mine}, {theirs}"), bits)
            differs = d if not differs else f.op(f"or i64 {differs}, {d}")
        return f.op(f"icmp eq i64 {differs}, 0")

    def _element(self, f: Function, index: str) -> str:
        at = f.op(f"mul nuw i64 {f.zext(index, 32)}, {self.m.elem_size}")
        return f.gep("%m", f.op(f"add nuw i64 {at}, {self._header(f, 64, ELEMS_OFF)}"))

    def _bucket(self, f: Function, key_hash: str) -> str:
        slot = f.op(f"and i32 {key_hash}, {f.op(f'sub i32 {self._header(f, 32, N_BUCKETS)}, 1')}")
        at = f.op(f"shl nuw i64 {f.zext(slot, 32)}, 2")
        return f.gep("%m", f.op(f"add nuw i64 {at}, {self._header(f, 64, BUCKETS_OFF)}"))

    # --- functions -----------------------------------------------------------------------------------------------------
    def _find(self) -> str:
        """``@find``: i32 index of the element with this key, or 0. ``@among``: the same, in a chain from element ``first`` on."""
        find = Function(f"define internal i32 @find{self.i}(ptr %m, ptr %key, i32 %hash) alwaysinline nounwind")
        first = find.load(32, self._bucket(find, "%hash"), 4)
        find.ret(f"i32 {find.op(f'call i32 @among{self.i}(ptr %m, ptr %key, i32 {first})')}")
        f = Function(f"define internal i32 @among{self.i}(ptr %m, ptr %key, i32 %first) alwaysinline nounwind")
        f.label("loop")
        f.lines.append("  %e = phi i32 [ %first, %entry ], [ %next, %chain ]")
        f.cond(f.op("icmp eq i32 %e, 0"), "done", "look")
        f.label("look")
        element = self._element(f, "%e")
        f.cond(self._same_key(f, element), "done", "chain")
        f.label("chain")
        f.lines.append(f"  %next = load i32, ptr {element}, align 8")
        f.br("loop")
        f.label("done")
        f.ret("i32 %e")
        hasher = Function(f"define internal i32 @hash{self.i}(ptr %m, ptr %key) alwaysinline nounwind")
        hasher.ret(f"i32 {self._hash(hasher)}")
        return "\n".join([hasher.text(), f.text(), find.text()])

    def _value(self, f: Function, index: str, cpu: str) -> str:
        at = f.op(f"mul nuw i64 {f.zext(index, 32)}, {self.m.value_step}")
        at = f.op(f"add nuw i64 {at}, {self._header(f, 64, VALUE_OFF)}")
        if self.per_cpu:
            at = f.op(f"add i64 {at}, {f.op(f'mul i64 {cpu}, {self._header(f, 64, CPU_STRIDE)}')}")
        return f.gep("%m", at)

    def _branch_on_key(self, f: Function, absent: str, present: str, key_hash: str = "") -> str:
        """Go on in block ``present`` with the index of the element that has %key, or in ``absent``."""
        key_hash = key_hash or f.op(f"call i32 @hash{self.i}(ptr %m, ptr %key)")
        e = f.op(f"call i32 @find{self.i}(ptr %m, ptr %key, i32 {key_hash})")
        f.cond(f.op(f"icmp eq i32 {e}, 0"), absent, present)
        f.label(present)
        return e

    def _lookup(self) -> str:
        f = Function(f"define internal i64 @lookup{self.i}(ptr %m, ptr %key, i64 %cpu) alwaysinline nounwind")
        key_hash = f.op(f"call i32 @hash{self.i}(ptr %m, ptr %key)")
        f.ret(f"i64 {f.op(f'call i64 @lookup_hashed{self.i}(ptr %m, ptr %key, i32 {key_hash}, i64 %cpu)')}")
        return "\n".join([self._lookup_hashed(), f.text()])

    def _lookup_hashed(self) -> str:
        head = f"define internal i64 @lookup_hashed{self.i}(ptr %m, ptr %key, i32 %hash, i64 %cpu)"
        f = Function(f"{head} alwaysinline nounwind")
        e = self._branch_on_key(f, "miss", "hit", "%hash")
        if self.is_lru:
            f.store(8, "1", f.gep(self._element(f, e), REF_OFF))
        value = self._value(f, e, "%cpu")
        return_address(f, value)
        f.label("miss")
        f.ret("i64 0")
        return f.text()

    def lookup_or_text(self) -> str:
        """As ``_find`` on a chain's first element, but that both tests are made at any rate. Element 0, of none, is zeroes."""
        f = Function(f"define internal i64 @lookup_or{self.i}(ptr %m, ptr %key, i64 %other, i64 %cpu) alwaysinline nounwind")
        key_hash = f.op(f"call i32 @hash{self.i}(ptr %m, ptr %key)")
        first = f.load(32, self._bucket(f, key_hash), 4)
        element = self._element(f, first)
        same = self._same_key(f, element)
        near = f.unforeseen(same, 64, self._value_address(f, first), "%other")
        near = f.unforeseen(f.op(f"icmp ne i32 {first}, 0"), 64, near, "%other")
        next_one = f.unforeseen(same, 32, "0", f.load(32, element, 8))
        f.rarely(f.op(f"icmp ne i32 {next_one}, 0"), "more", "found")
        f.label("more")
        e = f.op(f"call i32 @among{self.i}(ptr %m, ptr %key, i32 {next_one})")
        further = f.select(f.op(f"icmp ne i32 {e}, 0"), 64, self._value_address(f, e), "%other")
        f.label("found")
        f.lines.append(f"  %at = phi i64 [ {near}, %entry ], [ {further}, %more ]")
        f.ret("i64 %at")
        return f.text()

    def _value_address(self, f: Function, index: str) -> str:
        return f.op(f"ptrtoint ptr {self._value(f, index, '%cpu')} to i64")

    def _update_entry(self) -> str:
        """The inlined way in: key and value are copied, so that the program's stack never escapes."""
        s = self.spec
        f = Function(
            f"define internal i64 @update{self.i}(ptr %m, ptr %key, ptr %value, i64 %flags, i64 %cpu) alwaysinline nounwind"
        )
        key = f.op(f"alloca [{s.key_size} x i8], align 8")
        value = f.op(f"alloca [{s.value_size} x i8], align 8")
        f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr align 8 {key}, ptr %key, i64 {s.key_size}, i1 false)")
        f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr align 8 {value}, ptr %value, i64 {s.value_size}, i1 false)")
        f.ret(f"i64 {f.op(f'call i64 @replace{self.i}(ptr %m, ptr {key}, ptr {value}, i64 %flags, i64 %cpu)')}")
        return f.text()

    def _update(self) -> str:
        f = Function(
            f"define internal i64 @replace{self.i}(ptr noalias %m, ptr noalias %key, ptr noalias %value, i64 %flags, i64 %cpu) "
            "noinline nounwind"
        )
        f.cond(f.op("icmp ugt i64 %flags, 2"), "einval", "begin")
        f.label("begin")
        h = f.op(f"call i32 @hash{self.i}(ptr %m, ptr %key)")
        old = f.op(f"call i32 @find{self.i}(ptr %m, ptr %key, i32 {h})")
        f.cond(f.op(f"icmp eq i32 {old}, 0"), "absent", "present")
        f.label("present")
        f.cond(f.op("icmp eq i64 %flags, 1"), "eexist", "again")
        f.label("again")
        if self.per_cpu:
            self._write_value(f, old)
            f.ret("i64 0")
        else:
            self._replace_present(f, old, h)
        f.label("absent")
        f.cond(f.op("icmp eq i64 %flags, 2"), "enoent", "room")
        f.label("room")
        count = f.load(32, f.gep("%m", 4 * COUNT), 4)
        f.cond(f.op(f"icmp uge i32 {count}, {self._header(f, 32, MAX_ENTRIES)}"), "e2big", "insert")
        f.label("insert")
        fresh = self._take(f)
        if self.per_cpu:
            self._zero_values(f, fresh)
        self._write_value(f, fresh)
        self._link(f, fresh, h)
        f.ret("i64 0")
        for name in ("einval", "eexist", "enoent", "e2big"):
            f.label(name)
            f.ret(f"i64 {-getattr(errno, name.upper())}")
        return f.text()

    def _replace_present(self, f: Function, old: str, key_hash: str) -> None:
        """Another element takes the old one's place; the old one becomes this CPU's spare."""
        spare_at = f.gep("%m", f.op(f"add i64 {f.op('shl i64 %cpu, 2')}, {SPARE_OFF}"))
        spare = f.load(32, spare_at, 4)
        f.cond(f.op(f"icmp eq i32 {spare}, 0"), "nospare", "havespare")
        f.label("nospare")
        taken = self._take(f)
        f.br("write")
        after_take = self._block
        f.label("havespare")
        f.br("write")
        f.label("write")
        new = f.op(f"phi i32 [ {taken}, %{after_take} ], [ {spare}, %havespare ]")
        self._write_value(f, new)
        self._link(f, new, key_hash)
        f.do(f"call void @unlink{self.i}(ptr %m, i32 {old})")
        f.store(32, old, spare_at, 4)
        f.ret("i64 0")

    def _write_value(self, f: Function, index: str) -> None:
        size = self.spec.value_size
        f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {self._value(f, index, '%cpu')}, ptr %value, i64 {size}, i1 false)")

    def _zero_values(self, f: Function, index: str) -> None:
        """A new per-CPU element starts as zero on every CPU."""
        for cpu in range(self.m.n_cpus):
            size = round_up(self.spec.value_size, 8)
            f.do(f"call void @llvm.memset.p0.i64(ptr {self._value(f, index, str(cpu))}, i8 0, i64 {size}, i1 false)")

    def _take(self, f: Function) -> str:
        """An unlinked element: the one freed last, else a fresh one."""
        free_at, fresh_at = f.gep("%m", 4 * FREE), f.gep("%m", 4 * FRESH)
        some, none, done = f.fresh_label("free"), f.fresh_label("fresh"), f.fresh_label("taken")
        free = f.load(32, free_at, 4)
        f.cond(f.op(f"icmp eq i32 {free}, 0"), none, some)
        f.label(some)
        f.store(32, f.load(32, f.gep(self._element(f, free), 4), 4), free_at, 4)
        f.br(done)
        f.label(none)
        fresh = f.op(f"add i32 {f.load(32, fresh_at, 4)}, 1")
        f.store(32, fresh, fresh_at, 4)
        f.br(done)
        f.label(done)
        self._block = done
        return f.op(f"phi i32 [ {free}, %{some} ], [ {fresh}, %{none} ]")

    def _link(self, f: Function, index: str, key_hash: str) -> None:
        """Write the key and make the element its bucket's head."""
        element, bucket = self._element(f, index), self._bucket(f, key_hash)
        padded = round_up(self.spec.key_size, 8)
        if padded != self.spec.key_size:
            f.store(64, "0", f.gep(element, self.m.key_at + padded - 8), 8)
        key_at = f.gep(element, self.m.key_at)
        f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr align 8 {key_at}, ptr %key, i64 {self.spec.key_size}, i1 false)")
        f.store(32, f.load(32, bucket, 4), element, 8)
        f.store(32, key_hash, f.gep(element, 4), 4)
        f.store(32, index, bucket, 4)
        self._add_count(f, 1)

    def _add_count(self, f: Function, by: int) -> None:
        at = f.gep("%m", 4 * COUNT)
        f.store(32, f.op(f"add i32 {f.load(32, at, 4)}, {by}"), at, 4)

    def _unlink(self) -> str:
        f = Function(f"define internal void @unlink{self.i}(ptr noalias %m, i32 %old) noinline nounwind")
        element = self._element(f, "%old")
        slot = self._bucket(f, f.load(32, f.gep(element, 4), 4))
        f.label("loop")
        f.lines.append(f"  %slot = phi ptr [ {slot}, %entry ], [ %next, %chain ]")
        at = f.load(32, "%slot", 4)
        f.cond(f.op(f"icmp eq i32 {at}, %old"), "found", "chain")
        f.label("chain")
        step = self._element(f, at)
        f.lines.append(f"  %next = getelementptr i8, ptr {step}, i64 0")
        f.br("loop")
        f.label("found")
        f.store(32, f.load(32, element, 8), "%slot", 4)
        self._add_count(f, -1)
        f.ret("void")
        return f.text()

    def _delete(self) -> str:
        f = Function(f"define internal i64 @delete{self.i}(ptr %m, ptr %key) nounwind")
        e = self._branch_on_key(f, "enoent", "found")
        f.do(f"call void @unlink{self.i}(ptr %m, i32 {e})")
        free_at = f.gep("%m", 4 * FREE)
        f.store(32, f.load(32, free_at, 4), f.gep(self._element(f, e), 4), 4)
        f.store(32, e, free_at, 4)
        f.ret("i64 0")
        f.label("enoent")
        f.ret(f"i64 {-errno.ENOENT}")
        return f.text()


class HashOfMaps(Table):
    """A table whose values are the slots of ``maps.inner``."""

    def text(self) -> str:
        f = Function(f"define internal i64 @lookup{self.i}(ptr %m, ptr %key, i64 %cpu) alwaysinline nounwind")
        e = self._branch_on_key(f, "miss", "hit")
        f.ret(f"i64 {f.load(64, self._value(f, e, '0'), 8)}")
        f.label("miss")
        f.ret("i64 0")
        return "\n".join([self._find(), f.text()])


def _rol(f: Function, v: str, n: int) -> str:
    return f.op(f"or i32 {f.op(f'shl i32 {v}, {n}')}, {f.op(f'lshr i32 {v}, {32 - n}')}")


def _jhash_mix(f: Function, a: str, b: str, c: str) -> tuple[str, str, str]:
    """lookup3's reversible mixing of three words (public domain)."""
    state = [a, b, c]
    for x, y, z, n in ((0, 2, 1, 4), (1, 0, 2, 6), (2, 1, 0, 8), (0, 2, 1, 16), (1, 0, 2, 19), (2, 1, 0, 4)):
        state[x] = f.op(f"xor i32 {f.op(f'sub i32 {state[x]}, {state[y]}')}, {_rol(f, state[y], n)}")
        state[y] = f.op(f"add i32 {state[y]}, {state[z]}")
    return state[0], state[1], state[2]


def _jhash_final(f: Function, a: str, b: str, c: str) -> str:
    """lookup3's last mixing; its ``c`` is the hash."""
    state = [a, b, c]
    for x, y, n in ((2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24)):
        state[x] = f.op(f"sub i32 {f.op(f'xor i32 {state[x]}, {state[y]}')}, {_rol(f, state[y], n)}")
    return state[2]
