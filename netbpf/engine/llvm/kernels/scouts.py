"""Walking ahead of the packet loop in CHAINS places at once, so that of large records no more than the beginnings come into the
cache, and come from many places at the same time. In one place a record must be there before the next one can be asked for.

Every chain has a segment of its own, and takes the next one that nobody has when it comes to the end; it goes on by a record each
CHAINS packets, so that what it reads of one was asked for that long ago. (A loop that takes longer over a packet has done with
FEW_CHAINS.) Their first segments are of different sizes: chains that are at different places in theirs leave behind no more than
half of what they have brought in. Where a segment's first record begins is guessed from what it looks like. Nothing that is found
here decides anything: a wrong guess costs time.

``s`` is the address of what is known, u64 each: for every chain the address of its next record and then, for every chain, where
its segment ends; behind them what the names of offsets below tell.
"""

from __future__ import annotations

from netbpf.engine.llvm.kernels.language import apart, inline, leading_zeros, prefetch, u8, u32, u64

CHAINS = 16  # or what the loop says
FEW_CHAINS = 8
SEGMENT = 65536
BLOCK = 1048576  # CHAINS segments: so far ahead of the loop a segment has to be taken
UNTIL = 128
TURN = 256  # the chain whose turn it is, as an offset
AT = 264  # where the loop is
PACKETS = 272  # how many it has seen
END = 280  # of the window
ASK_AT = 288  # where the loop tells next where it is
NEXT = 296  # where the next segment begins
LOOKED_AT = 304  # where it was last looked at how large records are
BEFORE = 312  # how many packets the loop had seen there
MISSED = 320  # segments since in which no record was seen
STATE_BYTES = 328
SAMPLE = 64
LARGE = 384  # bytes of a record, from which on walking ahead beats bringing in every line
NEAR = 4096  # a segment without a record that begins so near is left out
LINE = 64
FIRST_LINES = 8  # of a segment, in which its first record is looked for
SLACK = 64  # what looking for a record reads beyond where it looks
LARGEST = 262144
EPB = 6
ONES = 0x0101010101010101
TOPS = 0x8080808080808080
ALL = 0xFFFFFFFFFFFFFFFF

# of the layout, when compiled
IS_PCAPNG = 0
IS_BIG = 0
HEADER = 16
CAPLEN_AT = 8
WIRELEN_AT = 12


def word(at: int) -> int:
    if IS_BIG:
        return (u8[at] << 24) | (u8[at + 1] << 16) | (u8[at + 2] << 8) | u8[at + 3]
    return u32[at]


@inline
def length(at: int) -> int:
    """Of the record there, as it says; never 0."""
    if IS_PCAPNG:
        total = word(at + 4)
        return total if total > 11 else SEGMENT
    return HEADER + word(at + CAPLEN_AT)


@inline
def step(s: int) -> None:
    """The chain whose turn it is goes on by a record, or to its next segment."""
    turn = u64[s + TURN]
    u64[s + TURN] = (turn + 8) & (8 * CHAINS - 8)
    chain = s + turn
    at = u64[chain]
    if at >= u64[chain + UNTIL]:
        take(s, chain, SEGMENT)
    else:
        bring(chain, at + length(at))


@inline
def bring(chain: int, at: int) -> None:
    """A chain is at a record, whose beginning is asked for."""
    u64[chain] = at
    prefetch(at)
    prefetch(at + LINE)


@apart
def take(s: int, chain: int, size: int) -> None:
    """The next segment, of so many bytes, for a chain, if it is neither too far ahead nor beyond the window."""
    start = u64[s + NEXT]
    end = u64[s + END] - SLACK
    if start >= end or start >= u64[s + AT] + 2 * BLOCK:
        return
    u64[s + NEXT] = start + size
    line = 0
    while line < FIRST_LINES:
        prefetch(start + BLOCK + LINE * line)
        line += 1
    until = start + size if start + size < end else end
    at = find(start, start + NEAR if start + NEAR < until else until, u64[s + AT])
    u64[chain + UNTIL] = until
    if at:
        bring(chain, at)
    else:
        u64[chain] = until
        u64[s + MISSED] += 1


@apart
def begin(s: int) -> int:
    """Where the loop is, see whether records are large enough, and begin; 0 where they are not."""
    at = u64[s + AT]
    end = u64[s + END]
    if end - at < 2 * BLOCK:
        return 0
    record = at
    n = 0
    while n < SAMPLE:
        record += length(record)
        if record >= end - SLACK:
            return 0
        n += 1
    if record - at < SAMPLE * LARGE:
        return 0
    u64[s + NEXT] = at
    u64[s + TURN] = 0
    look(s)
    k = 0
    while k < CHAINS:
        k += 1
        take(s, s + 8 * k - 8, k * (SEGMENT // CHAINS))
    if u64[s + MISSED] > CHAINS // 2:
        return 0
    keep(s)
    return 1


@apart
def turn(s: int) -> int:
    """The loop has come a segment further; 0 where walking ahead does not pay."""
    keep(s)
    walked = u64[s + AT] - u64[s + LOOKED_AT]
    if walked < BLOCK:
        return 1
    pays = u64[s + MISSED] <= CHAINS // 2 and (u64[s + PACKETS] - u64[s + BEFORE]) * LARGE <= walked
    look(s)
    return pays


def keep(s: int) -> None:
    """Go on until the segment that the loop comes to is done with: a chain takes as long over one as the loop over CHAINS."""
    u64[s + ASK_AT] = u64[s + AT] + SEGMENT
    ahead = u64[s + ASK_AT] + BLOCK
    end = u64[s + END] - SLACK
    while u64[s + NEXT] < ahead and u64[s + NEXT] < end:
        step(s)


def look(s: int) -> None:
    """From here on it is counted how large records are, and where none is seen."""
    u64[s + LOOKED_AT] = u64[s + AT]
    u64[s + BEFORE] = u64[s + PACKETS]
    u64[s + MISSED] = 0


@apart
def find(at: int, stop: int, like: int) -> int:
    """The address of a record in [at, stop); 0 where none is seen."""
    if IS_PCAPNG:
        return find_block(at, stop)
    return find_record(at, stop, like)


def find_block(at: int, stop: int) -> int:
    while at < stop:
        if word(at) == EPB:
            total = word(at + 4)
            rest = total - word(at + 20)
            if total < LARGEST and rest >= 32 and rest < 512:
                return at
        at += 4
    return 0


def find_record(at: int, stop: int, like: int) -> int:
    """Eight places at a time, by the upper two bytes of the seconds."""
    first = u8[like] * ONES if IS_BIG else u8[like + 2] * ONES
    second = u8[like + 1] * ONES if IS_BIG else u8[like + 3] * ONES
    off = 0 if IS_BIG else 2
    while at < stop:
        differ = (u64[at + off] ^ first) | (u64[at + off + 1] ^ second)
        same = (differ - ONES) & (differ ^ ALL) & TOPS  # perhaps of places above one that is the same, too
        while same:
            k = (63 - leading_zeros(same)) >> 3
            if (differ >> (8 * k)) & 255 == 0 and begins(at + k):
                return at + k
            same ^= 128 << (8 * k)
        at += 8
    return 0


def begins(at: int) -> int:
    """Whether a record that begins there would make sense."""
    caplen = word(at + CAPLEN_AT)
    wirelen = word(at + WIRELEN_AT)
    return word(at + 4) < 1000000000 and caplen <= wirelen and wirelen < LARGEST
