"""Random operation sequences on maps, and adapters so that our map, the kernel's and a model answer alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from netbpf.errors import BpfError
from netbpf.maps.storage import MapBase

Outcome = tuple[str, Any]
Step = tuple[str, tuple[Any, ...]]


def outcome(call: Callable[..., Any], *args: Any) -> Outcome:
    """("ok", result) or ("errno", number)."""
    try:
        return "ok", call(*args)
    except BpfError as refused:
        return "errno", refused.errno


class Ours:
    """A netbpf map with `program` as support.kernel_maps.KernelMap has it."""

    def __init__(self, live: MapBase, cpu: int = 0) -> None:
        self.live, self.cpu = live, cpu

    def __getattr__(self, name: str) -> Any:
        return getattr(self.live, name)

    def program(self, op: str, key: bytes = b"", value: bytes = b"", flags: int = 0) -> tuple[int, bytes]:
        return getattr(self, "_" + op)(key, value, flags)

    def _lookup(self, key: bytes, value: bytes, flags: int) -> tuple[int, bytes]:
        size = self.live.spec.value_size
        at = self.live.lookup(key, self.cpu)
        return (1, self.live.memory[at : at + size]) if at >= 0 else (0, value or bytes(size))

    def _update(self, key: bytes, value: bytes, flags: int) -> tuple[int, bytes]:
        return self.live.update(key, value, flags, self.cpu), value

    def _delete(self, key: bytes, value: bytes, flags: int) -> tuple[int, bytes]:
        return self.live.delete(key), value or bytes(self.live.spec.value_size)

    def _push(self, key: bytes, value: bytes, flags: int) -> tuple[int, bytes]:
        return self.live.push(value, flags), value

    def _pop(self, key: bytes, value: bytes, flags: int) -> tuple[int, bytes]:
        found = self.live.pop()
        return (0, found) if found is not None else (-2, bytes(self.live.spec.value_size))

    def _peek(self, key: bytes, value: bytes, flags: int) -> tuple[int, bytes]:
        if hasattr(self.live, "contains"):
            return (0 if self.live.contains(value) else -2), value
        found = self.live.peek()
        return (0, found) if found is not None else (-2, bytes(self.live.spec.value_size))

    def _ringbuf_output(self, key: bytes, value: bytes, flags: int) -> tuple[int, bytes]:
        return self.live.output(value, flags), value

    def _ringbuf_submit(self, key: bytes, value: bytes, flags: int, discard: bool = False) -> tuple[int, bytes]:
        at = self.live.reserve(len(value))
        if at < 0:
            return 1, value
        self.live.memory[at : at + 8] = value[:8]
        self.live.commit(at, flags, discard=discard)
        return 0, value

    def _ringbuf_discard(self, key: bytes, value: bytes, flags: int) -> tuple[int, bytes]:
        return self._ringbuf_submit(key, value, flags, discard=True)

    def _perf_event_output(self, key: bytes, value: bytes, flags: int) -> tuple[int, bytes]:
        return self.live.output(value, flags, bytes(50), self.cpu), value

    def _ringbuf_query(self, key: bytes, value: bytes, flags: int) -> tuple[int, bytes]:
        return self.live.query(flags), value


def keyed_steps(
    rng: random.Random, keys: list[bytes], value_size: int, user_size: int, length: int, flags: tuple[int, ...]
) -> Iterator[Step]:
    """User-space and program operations of a map with keys."""
    ops = ["update_user"] * 4 + ["update"] * 4
    ops += ["lookup", "lookup", "lookup_user", "delete", "delete_user", "lookup_and_delete_user", "next_key"]
    for _ in range(length):
        op, key = rng.choice(ops), rng.choice(keys)
        if op == "update_user":
            yield op, (key, rng.randbytes(user_size), rng.choice(flags))
        elif op in ("lookup_user", "lookup_and_delete_user"):
            yield op, (key, rng.choice((0, 0, 0, 0, 4, 1)))
        elif op in ("delete_user", "next_key"):
            yield op, (key,)
        else:
            yield "program", (op, key, rng.randbytes(value_size) if op == "update" else bytes(value_size), rng.choice(flags))


def keyless_steps(rng: random.Random, value_size: int, length: int) -> Iterator[Step]:
    """Operations of a queue or a stack."""
    ops = ("push", "push", "push", "pop", "peek", "update_user", "lookup_user", "lookup_and_delete_user", "delete_user")
    for _ in range(length):
        op = rng.choice(ops)
        if op in ("push", "pop", "peek"):
            yield "program", (op, b"", rng.randbytes(value_size), rng.choice((0, 0, 0, 2, 1, 3, 4)))
        elif op == "update_user":
            yield op, (b"", rng.randbytes(value_size), rng.choice((0, 0, 2, 1, 3, 4)))
        elif op == "delete_user":
            yield op, (b"",)
        else:
            yield op, (b"", rng.choice((0, 0, 0, 1, 4)))


def walk(live: Any) -> list[bytes]:
    """Every key, by next_key from the start."""
    keys, key = [], live.next_key(None)
    while key is not None:
        keys.append(key)
        key = live.next_key(key)
    return keys
