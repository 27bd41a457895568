"""Lines of program text -> tokens, and a cursor that reads them and says precisely what is wrong where.

Shared by the readers of text (kernel-style and uBPF assembly). Knows words and numbers; no instruction, no directive.

Comments: ``;`` and ``//`` to the end of the line, ``#`` at the start of a line or after a blank (so ``call f#1`` is no
comment), ``/* ... */`` anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple, NoReturn

from netbpf.errors import SourceError
from netbpf.ints import S64_MIN, U64_MAX

IDENT: Final = "ident"
NUMBER: Final = "number"
STRING: Final = "string"
OP: Final = "op"
END: Final = "end"

_WORDS: Final = r"""(?P<blank>[ \t\r\f\v]+)
      | (?P<comment>;.*|//.*HASH_COMMENT)
      | (?P<string>(?:hex|ip|mac)?"(?:[^"\\]|\\.)*")
      | (?P<sign>s(?:>>=|/=|%=|>=|<=|>|<))
      | (?P<number>[0-9][0-9A-Za-z_]*)
      | (?P<ident>[A-Za-z_.$][A-Za-z0-9_.$]*)
      | (?P<op><<=|>>=|[-+*/%|&^=!]=|>=|<=|<<|>>|[-+*/%|&^~()\[\]{},:=<>\#@])"""
TOKENS: Final = re.compile(_WORDS.replace("HASH_COMMENT", r"|(?:(?<=\s)|^)\#.*"), re.VERBOSE)
WITHOUT_HASH_COMMENTS: Final = re.compile(_WORDS.replace("HASH_COMMENT", ""), re.VERBOSE)
_BLOCK_COMMENT = re.compile(r'"(?:[^"\\\n]|\\.)*"|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\", '"': '"'}
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)", re.DOTALL)
_LITERAL = re.compile(r"(?:0[xX](?:_?[0-9A-Fa-f])+|0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|[0-9]+|[1-9](?:_?[0-9])*)\Z")
_MAX_DIGITS: Final = 80
_MAX_DEPTH: Final = 50


class Token(NamedTuple):
    """``column`` starts at 1; of an END token it is where the line's content ends."""

    kind: str
    text: str
    column: int


class Line(NamedTuple):
    """One line of the source, its number from 1, and its text as written (``blanked``: block comments as blanks)."""

    number: int
    text: str
    blanked: str


def split_lines(text: str) -> Iterator[Line]:
    """The lines of ``text``, with ``/* */`` comments blanked out but every column kept."""
    blanked = _BLOCK_COMMENT.sub(_blank, text) if "/*" in text else text
    for number, (line, clean) in enumerate(zip(text.split("\n"), blanked.split("\n"), strict=True), 1):
        yield Line(number, line.rstrip("\r"), clean.rstrip("\r"))


def _blank(found: re.Match[str]) -> str:
    whole = found[0]
    return re.sub(r"[^\n]", " ", whole) if whole.startswith("/*") else whole


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """``; did you mean 'x'?`` when a candidate is near, else nothing."""
    import difflib  # only where something is wrong already

    near = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


class Cursor:
    """Reads one line's tokens from left to right. Every complaint is a SourceError with the place and a caret."""

    __slots__ = ("path", "line", "tokens", "at", "comment")

    def __init__(self, line: Line, path: str, start: int = 0, tokens: re.Pattern[str] = TOKENS) -> None:
        self.path, self.line, self.at = path, line, 0
        self.comment: Token | None = None
        self.tokens = self._scan(start, tokens)

    def _scan(self, start: int, pattern: re.Pattern[str]) -> list[Token]:
        text, tokens, end = self.line.blanked, [], start
        while start < len(text):
            found = pattern.match(text, start)
            if found is None:
                self.fail(Token(OP, text[start], start + 1), f"'{text[start]}' means nothing here")
            kind, word = str(found.lastgroup), found[0]
            if kind == "comment":
                self.comment = Token(kind, word, start + 1)
            elif kind != "blank":
                tokens.append(Token(OP if kind == "sign" else kind, word, start + 1))
                end = found.end()
            start = found.end()
        tokens.append(Token(END, "", end + 1))
        return tokens

    # --- looking --------------------------------------------------------------------------------------------------------

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def peek(self, ahead: int = 1) -> Token:
        """The token ``ahead`` of the current one; the END token where the line is over."""
        return self.tokens[min(self.at + ahead, len(self.tokens) - 1)]

    def is_at(self, *words: str) -> bool:
        """Whether the current token is one of ``words``, written as such and not as a string."""
        token = self.token
        return token.text in words and token.kind in (IDENT, OP)

    def ended(self) -> bool:
        return self.token.kind == END

    # --- taking ---------------------------------------------------------------------------------------------------------

    def next(self) -> Token:
        token = self.token
        if token.kind != END:
            self.at += 1
        return token

    def accept(self, *words: str) -> Token | None:
        return self.next() if self.is_at(*words) else None

    def expect(self, word: str, after: str = "") -> Token:
        if not self.is_at(word):
            self.fail(self.token, f"expected '{word}'{f' after {after}' if after else ''}{self._got()}")
        return self.next()

    def ident(self, what: str) -> Token:
        if self.token.kind != IDENT:
            self.fail(self.token, f"expected {what}{self._got()}")
        return self.next()

    def end(self) -> None:
        """Nothing but a comment may follow."""
        if not self.ended():
            self.fail(self.token, f"'{self.token.text}' is left over after a whole statement")

    def _got(self) -> str:
        return ", the line ends here" if self.ended() else f", got '{self.token.text}'"

    # --- complaining ----------------------------------------------------------------------------------------------------

    def fail(self, token: Token, message: str) -> NoReturn:
        """Raise a SourceError that points at ``token``."""
        raise SourceError(
            message,
            path=self.path,
            line=self.line.number,
            column=token.column,
            source_line=self.line.text,
            width=max(len(token.text), 1),
        )


# --- constant expressions: C's operators and precedence on integers of at most 64 bits ---------------------------------------

_LEVELS: Final = (("|",), ("^",), ("&",), ("<<", ">>"), ("+", "-"), ("*", "/", "%"))
_BINARY: Final = frozenset(sign for level in _LEVELS for sign in level)


def number(cursor: Cursor) -> int:
    """A literal: decimal, 0x, 0o or 0b, with underscores."""
    token = cursor.next()
    if not _LITERAL.match(token.text) or len(token.text) > _MAX_DIGITS:
        cursor.fail(token, f"'{token.text}' is no number")
    return int(token.text, 10 if token.text.isdigit() else 0)


def expression(cursor: Cursor, constants: Mapping[str, int], what: str = "a number", depth: int = 0) -> int:
    """The value of a constant expression; -2**63 <= v < 2**64 or SourceError."""
    if cursor.token.kind == NUMBER and cursor.peek().text not in _BINARY:
        return _bounded(cursor, cursor.token, number(cursor))  # the usual case, without the ladder
    return _binary(cursor, constants, what, 0, depth)


def sum_terms(cursor: Cursor, constants: Mapping[str, int], what: str) -> int:
    """Zero or more signed terms: the ``+ 4 - SIZE`` that may follow a base register or a symbol."""
    value = 0
    while (sign := cursor.accept("+", "-")) is not None:
        term = _binary(cursor, constants, what, 5, 0)
        value = _bounded(cursor, sign, value + term if sign.text == "+" else value - term)
    return value


def _binary(cursor: Cursor, constants: Mapping[str, int], what: str, level: int, depth: int) -> int:
    if level == len(_LEVELS):
        return _unary(cursor, constants, what, depth)
    left = _binary(cursor, constants, what, level + 1, depth)
    while (sign := cursor.accept(*_LEVELS[level])) is not None:
        right = _binary(cursor, constants, what, level + 1, depth)
        left = _bounded(cursor, sign, _apply(cursor, sign, left, right))
    return left


def _apply(cursor: Cursor, sign: Token, a: int, b: int) -> int:
    match sign.text:
        case "|":
            return a | b
        case "^":
            return a ^ b
        case "&":
            return a & b
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "<<" | ">>":
            if not 0 <= b <= 64:
                cursor.fail(sign, f"a shift by {b} bits")
            return a << b if sign.text == "<<" else a >> b
    if b == 0:
        cursor.fail(sign, "division by zero")
    quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)  # towards zero, as in C
    return quotient if sign.text == "/" else a - b * quotient


def _bounded(cursor: Cursor, token: Token, value: int) -> int:
    if not S64_MIN <= value <= U64_MAX:
        cursor.fail(token, "the value does not fit 64 bits")
    return value


def _unary(cursor: Cursor, constants: Mapping[str, int], what: str, depth: int) -> int:
    token = cursor.token
    if depth > _MAX_DEPTH:
        cursor.fail(token, "the expression is nested too deep")
    if cursor.accept("-"):
        return _bounded(cursor, token, -_unary(cursor, constants, what, depth + 1))
    if cursor.accept("+"):
        return _unary(cursor, constants, what, depth + 1)
    if cursor.accept("~"):
        return _bounded(cursor, token, ~_unary(cursor, constants, what, depth + 1))
    if cursor.accept("("):
        value = expression(cursor, constants, what, depth + 1)
        cursor.expect(")")
        return value
    if token.kind == NUMBER:
        return _bounded(cursor, token, number(cursor))
    if token.kind != IDENT:
        cursor.fail(token, f"expected {what}{', the line ends here' if token.kind == END else f', got {token.text!r}'}")
    return _constant(cursor, constants, what)


def _constant(cursor: Cursor, constants: Mapping[str, int], what: str) -> int:
    token = cursor.next()
    if token.text not in constants:
        cursor.fail(token, f"'{token.text}' is no {what.removeprefix('a ').removeprefix('an ')} and no constant"
                           f"{did_you_mean(token.text, constants)}")  # fmt: skip
    return constants[token.text]


# --- strings ----------------------------------------------------------------------------------------------------------------


def string(cursor: Cursor, what: str = "a quoted string") -> str:
    """A plain ``"..."``; escapes are C's, with ``\\xNN``, ``\\uNNNN`` and ``\\UNNNNNNNN`` as characters."""
    token = cursor.token
    if token.kind != STRING or not token.text.startswith('"'):
        cursor.fail(token, f"expected {what}")
    cursor.next()
    return _ESCAPE.sub(lambda found: _unescape(cursor, token, found[1]), token.text[1:-1])


def _unescape(cursor: Cursor, token: Token, escape: str) -> str:
    if escape[0] in "xuU" and len(escape) > 1:
        value = int(escape[1:], 16)
        return chr(value) if value <= 0x10FFFF else cursor.fail(token, f"\\{escape} is no character")
    if escape not in _ESCAPES:
        cursor.fail(token, f"\\{escape} is no escape: these are {' '.join(chr(92) + e for e in _ESCAPES)} \\xNN \\uNNNN")
    return _ESCAPES[escape]


def quote(text: str) -> str:
    """The inverse of :func:`string`."""
    return f'"{"".join(map(_escape, text))}"'


def _escape(c: str) -> str:
    if c in '"\\':
        return "\\" + c
    if c.isprintable():
        return c
    n = ord(c)
    return f"\\x{n:02x}" if n < 0x100 else f"\\u{n:04x}" if n < 0x10000 else f"\\U{n:08x}"


def byte_string(cursor: Cursor) -> bytes:
    """``"text"`` as UTF-8, ``hex"00 ff"``, ``ip"10.0.0.1"`` and ``mac"02:00:..."`` as they stand on the wire."""
    token = cursor.token
    if token.text.startswith('"'):
        return string(cursor).encode("utf-8", "surrogatepass")
    cursor.next()
    kind, _, body = token.text.partition('"')
    try:
        return _BYTES_OF[kind](body[:-1])
    except ValueError as e:
        cursor.fail(token, f"{kind}: {e}")


def _mac(text: str) -> bytes:
    octets = bytes.fromhex(text.replace(":", " ").replace("-", " "))
    if len(octets) != 6:
        raise ValueError(f"a MAC address has 6 bytes, this {len(octets)}")
    return octets


def _ip(text: str) -> bytes:
    import ipaddress

    return ipaddress.ip_address(text).packed


_BYTES_OF: Final = {"hex": bytes.fromhex, "ip": _ip, "mac": _mac}
