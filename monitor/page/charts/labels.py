"""Names of intents, long and short."""

from __future__ import annotations

from monitor.page.charts.theme import OTHER
from stream.schema.messages import Intent


def intent_name(intent: Intent | None, number: int | None) -> str:
    """The name of an intent: its own, else its first item, else its number."""
    if number is None:
        return "none"
    if number == OTHER:
        return "all others"
    if intent is None:
        return f"intent {number}"
    if intent.name:
        return intent.name
    return f"{number} · {intent.top_items[0]}" if intent.top_items else f"intent {number}"


def intent_label(intent: Intent | None, number: int | None) -> str:
    """A short name, for a cell or a label: of a list of items the first."""
    return intent_name(intent, number).partition(", ")[0]


def chart_label(text: str, most: int = 22) -> str:
    """At most `most` characters, without the braces that ECharts interprets.

    >>> chart_label("{a} long name", 6)
    '(a) l…'
    """
    text = text.replace("{", "(").replace("}", ")")
    return text if len(text) <= most else text[: most - 1] + "…"
