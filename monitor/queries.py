"""Queries that the API and the page share: one user, one intent."""

from __future__ import annotations

from typing import Final

from monitor.answers import HistoryEvent, IntentPage, IntentSample, UserView
from monitor.view.records import Sample
from monitor.view.view import View
from stream.schema.messages import IntentShift

_SHIFTS: Final = 50


def find_user(view: View, user: str) -> UserView | None:
    """All that the topics say about a user; None when they say nothing."""
    users = view.users
    newest = users.recommendations(user)
    found = UserView(
        user=user,
        history=[HistoryEvent(item=one.item, ts=one.ts, action=one.action) for one in users.history(user)],
        intent=None if newest is None or newest.intent is None else view.catalog.by_id.get(newest.intent),
        shifts=users.shifts(user),
        recommendations=newest,
        erased=users.receipt(user),
    )
    known = found.history or found.shifts or found.recommendations or found.erased
    return found if known else None


def newest_shifts(view: View, count: int, intent: int | None = None) -> list[IntentShift]:
    """The newest shifts of all users, newest first; only those from or to `intent` where it is given."""
    shifts: list[IntentShift] = list(reversed(view.shifts.newest()))
    if intent is not None:
        shifts = [one for one in shifts if intent in (one.from_intent, one.to_intent)]
    shifts.sort(key=lambda one: -one.step)  # the reader reads partitions one after the other
    return shifts[:count]


def find_intent(view: View, number: int) -> IntentPage | None:
    """One intent with its trail and its newest shifts; None when the catalog does not have it."""
    intent = view.catalog.by_id.get(number)
    if intent is None:
        return None
    samples: list[Sample] = view.catalog.samples.newest()
    trail = [
        IntentSample(step=one.step, share=one.intents[number][0], position=list(one.intents[number][1:]))
        for one in samples
        if number in one.intents
    ]
    return IntentPage(intent=intent, trail=trail, shifts=newest_shifts(view, _SHIFTS, number))
