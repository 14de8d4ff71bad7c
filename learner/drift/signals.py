"""All signals by name.

A new signal is one subclass of `Signal`, its place here and in `SIGNAL_NAMES`; see CONTRIBUTING.
"""

from __future__ import annotations

from typing import Final

from learner.drift.scalar_signals import (
    ArrivalRate,
    CenterSpeed,
    DeadLetters,
    Distance,
    Loss,
    NewItems,
    Refusals,
    ServedHits,
)
from learner.drift.share_signals import IntentShares, Popularity
from learner.drift.signal import Observed, Signal

SIGNALS: Final[dict[str, type[Signal]]] = {
    kind.name: kind
    for kind in (
        ServedHits,
        Loss,
        Distance,
        IntentShares,
        Popularity,
        CenterSpeed,
        NewItems,
        ArrivalRate,
        DeadLetters,
        Refusals,
    )
}


__all__ = ["Observed", "SIGNALS", "Signal"]
