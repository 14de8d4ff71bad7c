"""Errors of kafka-python as errors of the log, with what was being done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import kafka.errors as errors

from stream.log.base import LogError, LogUnavailable, MessageTooLarge, WriterFenced

FENCED: Final = (errors.ProducerFencedError, errors.InvalidProducerEpochError, errors.FencedInstanceIdError)
_UNREACHABLE: Final = (errors.RetriableError, errors.KafkaConnectionError, errors.KafkaTimeoutError)


def is_fenced(exc: BaseException) -> bool:
    """Whether the error says that another producer took over; the client wraps that in errors of other kinds."""
    seen: list[BaseException] = [exc]
    for one in seen:
        if isinstance(one, FENCED):
            return True
        inner = (*one.args, one.__cause__, one.__context__)
        seen += [found for found in inner if isinstance(found, BaseException) and found not in seen]
    return False


def translated(exc: Exception, url: str, doing: str) -> LogError:
    """The log's error for one of the client's, with what was being done."""
    if isinstance(exc, LogError):
        return exc
    said, name = " ".join(str(exc).split()), type(exc).__name__
    what = f"{url}: cannot {doing}: {said if said.startswith(name) else f'{name}: {said}'}"
    if is_fenced(exc):
        return WriterFenced(f"{what}: another process runs as this worker, this one must stop")
    if isinstance(exc, errors.MessageSizeTooLargeError | errors.RecordListTooLargeError):
        return MessageTooLarge(f"{what}: the topic's max.message.bytes is smaller than this version needs")
    if isinstance(exc, errors.UnsupportedCodecError):
        return LogError(f"{what}: install what intentstream depends on for it: lz4, python-snappy, zstandard")
    if isinstance(exc, errors.SaslAuthenticationFailedError):
        return LogError(f"{what}: check log.kafka.sasl_username and the password it names")
    if isinstance(exc, errors.AuthorizationError):
        return LogError(f"{what}: give this user the right on the brokers")
    if isinstance(exc, _UNREACHABLE):
        return LogUnavailable(
            f"{what}: is the broker running, and is the protocol {'/'.join(('PLAINTEXT', 'SSL'))} right?"
        )
    return LogError(what)


@contextlib.contextmanager
def explained(url: str, doing: str) -> Iterator[None]:
    """Raise the client's errors as the log's, with what was being done."""
    try:
        yield
    except (errors.KafkaError, OSError, ValueError, TypeError) as exc:
        raise translated(exc, url, doing) from exc
