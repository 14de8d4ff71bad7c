"""Connections to Kafka: clients made so that a failure leaves nothing behind, and the client's errors as ours."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import kafka.errors as errors
from kafka.net.compat import KafkaNetClient

from stream.log.base import LogError, LogUnavailable, MessageTooLarge, WriterFenced

FENCED: Final = (errors.ProducerFencedError, errors.InvalidProducerEpochError, errors.FencedInstanceIdError)
PAUSE_S: Final = 0.05
MOST_ASLEEP: Final = 256  # threads of calls that hang: hours of a broker that answers nothing
_UNREACHABLE: Final = (errors.RetriableError, errors.KafkaConnectionError, errors.KafkaTimeoutError)


def connect(kind: Callable[..., Any], **settings: Any) -> Any:
    """Make a client of this kind; when its constructor fails, the thread and the sockets it had opened are closed.

    kafka-python starts its network thread before it looks for the brokers and forgets it when there are none: a worker
    that waits an hour for its broker would keep one thread for each try.
    """
    opened: list[Any] = []

    def network(**configs: Any) -> Any:
        opened.append(KafkaNetClient(**configs))
        return opened[-1]

    try:
        return kind(kafka_client=network, **settings)
    except BaseException:
        for one in opened:
            one.close()
        raise


def offsets_of(ask: Callable[[Sequence[Any]], dict[Any, int]], partitions: Sequence[Any], timeout_ms: int) -> list[int]:
    """What `ask`, a consumer's `beginning_offsets` or `end_offsets`, says of each partition.

    kafka-python 3.0.12 leaves out a partition whose leader it does not know (yet, or while one is elected) when it
    knows that of another one, and then fails over what is missing.
    """
    deadline = time.monotonic() + timeout_ms / 1000
    while True:
        try:
            found = ask(partitions)
            return [found[tp] for tp in partitions]
        except KeyError as exc:
            if time.monotonic() > deadline:
                raise errors.KafkaTimeoutError(f"{exc.args[0]} has no leader that is known") from exc
            time.sleep(PAUSE_S)


def fenced(exc: BaseException) -> bool:
    """Whether the error says that another producer took over; the client wraps that in errors of other kinds."""
    seen: list[BaseException] = [exc]
    for one in seen:
        if isinstance(one, FENCED):
            return True
        inner = (*one.args, one.__cause__, one.__context__)
        seen += [found for found in inner if isinstance(found, BaseException) and found not in seen]
    return False


def translated(exc: Exception, url: str, doing: str) -> LogError:
    """The error of ours for one of the client's, with what was being done."""
    if isinstance(exc, LogError):
        return exc
    what = f"{url}: cannot {doing}: {type(exc).__name__}: {' '.join(str(exc).split())}"
    if fenced(exc):
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
    """Raise the client's errors as ours, with what was being done."""
    try:
        yield
    except (errors.KafkaError, OSError, ValueError, TypeError) as exc:
        raise translated(exc, url, doing) from exc


class _Call(threading.Thread):
    """A call of the client that may never come back."""


def bounded(call: Callable[[], None], timeout_ms: int, name: str) -> BaseException | None:
    """Run the call, which may hang, and give its error; `TimeoutError` when it is still not back after the time.

    The thread of a call that never comes back stays, asleep, until the process ends. When there are `MOST_ASLEEP` of
    them no other is begun: the `LogError` given then ends the process, and the next one begins with none.
    """
    asleep = sum(isinstance(thread, _Call) for thread in threading.enumerate())
    if asleep >= MOST_ASLEEP:
        return LogError(
            f"{asleep} calls of the Kafka client have not come back: the brokers take connections and give no answers; "
            "look at them, then start this process again: nothing is lost"
        )
    outcome: list[BaseException | None] = []

    def run() -> None:
        try:
            call()
            outcome.append(None)
        except BaseException as exc:
            outcome.append(exc)

    thread = _Call(target=run, name=name, daemon=True)
    thread.start()
    thread.join(timeout_ms / 1000)
    return outcome[0] if outcome else TimeoutError(f"no answer within {timeout_ms} ms")
