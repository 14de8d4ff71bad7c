"""Names of intents, from titles and categories of their top items."""

from __future__ import annotations

from collections.abc import Sequence


def name_intent(items: Sequence[str], titles: dict[str, tuple[str, str]], most: int = 3) -> str:
    """The name of an intent with these top items, best first.

    Parameters
    ----------
    items
        Item ids.
    titles
        Title and category of each item, from the file given with `--items`; either may be empty.
    most
        Most titles in a name.

    Returns
    -------
    The category of more than half of the items that have one, else the best titles, or ids.
    """
    categories = [titles[item][1] for item in items if item in titles and titles[item][1]]
    names = [titles[item][0] or item if item in titles else item for item in items]
    if categories:
        best = max(sorted(set(categories)), key=categories.count)
        if 2 * categories.count(best) > len(categories):
            return best
    return ", ".join(names[:most])


__all__ = ["name_intent"]
