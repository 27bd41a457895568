"""SHA-256 as Python has it built in: hashlib would load OpenSSL, which takes longer than all else a start from the cache does."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:
        if sys.version_info >= (3, 12):
            from _sha2 import sha256
        else:
            from _sha256 import sha256
    except ImportError:  # neither name is promised
        from hashlib import sha256

__all__ = ["sha256"]
