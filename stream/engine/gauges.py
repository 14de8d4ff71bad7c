"""Figures of the engine for the metrics topic; no part of the state."""

from __future__ import annotations

import numpy as np

from stream.engine.checkpoint import EngineParts


def gauges(engine: EngineParts) -> dict[str, float]:
    """Figures of the learner and of the served lists; see `Engine.gauges`."""
    health = engine.learner.intent_health()
    found = {
        "items": float(engine.learner.size),
        "intents_active": float(health["active"]),
        "intents_effective": round(health["effective"], 2),
        "serving_snapshot": float(engine.learner.serving == "snapshot"),
        **engine.accuracy.gauges(),
    }
    if not np.isnan(engine.last_loss):
        found["loss"] = round(engine.last_loss, 4)
    return found


__all__ = ["gauges"]
