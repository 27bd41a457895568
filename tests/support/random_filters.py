"""Random programs that do nothing but decide."""

from __future__ import annotations

import random

HEADER = '.type socket_filter\n.license "GPL"\nr6 = r1\nr7 = 1\nr8 = 2\nr9 = 3\nr0 = 4\n'
DATA = ("r0", "r7", "r8", "r9")


def random_filter(rng: random.Random) -> str:
    """A program that loads, calculates, jumps forwards and returns."""
    n, lines = rng.randrange(2, 24), []
    for at in range(n):
        r, other = rng.choice(DATA), rng.choice(DATA)
        width, wide = rng.choice(("u8", "u16", "u32")), rng.random() < 0.5
        name = r if wide else "w" + r[1:]
        number = rng.choice((0, 1, 4, 15, 60, 443, 0x800, 0x0A00_0000, -1, -(1 << 31)))
        operand = str(number) if rng.random() < 0.7 else other if wide else "w" + other[1:]
        kind = rng.randrange(8)
        lines.append(f"l{at}:")
        if kind == 0:
            lines.append(f"r0 = *({width} *)skb[{rng.choice((0, 9, 11, 12, 14, 23, 26, 30, 40, 62))}]")
        elif kind == 1:
            lines.append(f"{other} &= {rng.choice((0, 15, 60, 255))}")
            lines.append(f"r0 = *({width} *)skb[{other} + {rng.choice((3, 12, 14, 30, 60))}]")
        elif kind == 2:
            lines.append(f"{r} = *(u32 *)(r6 + {rng.choice((0, 4, 16, 20, 24, 28))})")  # len pkt_type protocol vlan_*
        elif kind == 3:
            lines.append(f"{name} {rng.choice(('+', '-', '*', '|', '&', '^', ''))}= {operand}")
        elif kind == 4:
            lines.append(f"{name} {rng.choice(('<<', '>>', 's>>'))}= {rng.randrange(32)}")
        elif kind == 5:
            lines.append(rng.choice((f"{r} = be16 {r}", f"{r} = be32 {r}", f"{r} = le16 {r}", f"{r} = -{r}")))
        else:
            how = rng.choice(("==", "!=", ">", ">=", "<", "<=", "s>", "s>=", "s<", "s<=", "&"))
            lines.append(f"if {name} {how} {operand} goto l{rng.randrange(at + 1, n + 1)}")
        if rng.random() < 0.08:
            lines += [f"r0 = {rng.choice((0, 20, 262144))}", "exit"]
    return HEADER + "\n".join([*lines, f"l{n}:", "exit"]) + "\n"
