"""SHA-256 as Python has it built in: hashlib would load OpenSSL, which takes longer than all else a start from the cache does."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:
        from _sha2 import sha256  # since 3.12
    except ImportError:
        try:
            from _sha256 import sha256
        except ImportError:  # neither name is promised
            from hashlib import sha256

__all__ = ["sha256"]
