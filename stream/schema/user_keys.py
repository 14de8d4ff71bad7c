"""User ids as 64-bit keys."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def user_keys(users: Sequence[bytes]) -> NDArray[np.uint64]:
    """Stable 64-bit hashes of user ids, (n,).

    >>> user_keys([b"anna"]).tolist() == user_keys([b"anna"]).tolist() != user_keys([b"bert"]).tolist()
    True
    """
    return np.frombuffer(b"".join([blake2b(user, digest_size=8).digest() for user in users]), dtype="<u8")


__all__ = ["user_keys"]
