"""The keys of a day in memory: as a dictionary with times would answer."""

from __future__ import annotations

from hashlib import blake2b

from stream.log.kafka.key_window import KeyWindow


def digest(i: int) -> bytes:
    return blake2b(b"%d" % i, digest_size=16).digest()


def test_keys_are_known_within_the_window_whatever_was_sealed() -> None:
    window = KeyWindow(ttl_ms=1_000, sealed_at=64)
    for i in range(1_000):
        window.add(digest(i), i)
    assert all(window.knows(digest(i), 1_000) for i in range(100, 1_000))
    assert not any(window.knows(digest(i), 999) for i in range(1_000, 2_000))
    assert window.knows(digest(100), 1_063) and not window.knows(digest(100), 1_100 + 64)


def test_old_keys_and_too_many_are_forgotten() -> None:
    window = KeyWindow(ttl_ms=100, sealed_at=10)
    for i in range(1_000):
        window.add(digest(i), i)
    assert len(window) <= 100 + 2 * 10
    window = KeyWindow(ttl_ms=10_000, most=200, sealed_at=10)
    for i in range(1_000):
        window.add(digest(i), i)
    assert 190 <= len(window) <= 200
    assert window.knows(digest(999), 1_000) and not window.knows(digest(0), 1_000)
