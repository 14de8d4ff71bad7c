"""Hypothesis draws the same examples on a slow machine as on a fast one: no check here measures the machine."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("intentstream", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("intentstream")
