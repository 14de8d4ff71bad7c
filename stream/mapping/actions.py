"""Actions as files name them, and the names that the configuration knows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from stream.errors import SourceError
from stream.schema.events import ERASE, ActionsConfig

# what the well-known sets and tools call the actions of the default configuration, in the form of `_plain`
_SYNONYMS: Final = {
    **dict.fromkeys(["addtocart", "add_to_cart", "carts", "atc", "product_added", "added_to_cart", "basket"], "cart"),
    **dict.fromkeys(["transaction", "transactions", "buy", "order", "orders", "purchases", "purchased"], "purchase"),
    **dict.fromkeys(["order_completed", "purchase_complete", "bought", "ordered", "checkout_completed"], "purchase"),
    **dict.fromkeys(["clicks", "clicked", "select_item", "product_clicked"], "click"),
    **dict.fromkeys(["views", "viewed", "pv", "pageview", "page_view", "detail", "detail_view", "view_item"], "view"),
    **dict.fromkeys(["product_viewed", "product_view", "detail_page_view"], "view"),
    **dict.fromkeys(["rating", "rated"], "rate"),
    **dict.fromkeys(["dislikes", "disliked"], "dislike"),
}
_MAX_ACTIONS: Final = 254  # as many as the configuration may have
_NAMED: Final = 10
_SHOWN: Final = 40  # characters of a name


class ActionNames:
    """Translates the actions of a file.

    Parameters
    ----------
    known
        Names of the configuration.
    given
        Translations of the user; they come first.

    Examples
    --------
    >>> names = ActionNames(["view", "cart"], {"fav": "cart"})
    >>> names.translate(["view", "addtocart", "fav", "fly", None])
    ['view', 'cart', 'cart', 'fly', None]
    >>> names.used
    {'addtocart': 'cart', 'fav': 'cart'}
    """

    def __init__(self, known: Sequence[str] | None = None, given: Mapping[str, str] | None = None) -> None:
        self._known = frozenset(ActionsConfig().names() if known is None else known) | {ERASE}
        self._given = dict(given or {})
        self._cache: dict[str | None, str | None] = {None: None}
        for old, new in self._given.items():
            if new not in self._known:
                raise SourceError(
                    f"--actions {old}={new}: {new} is no action of the configuration: expected one of "
                    f"{', '.join(sorted(self._known))}"
                )

    @property
    def used(self) -> dict[str, str]:
        """Translations of the values seen so far, without those that stay as they are."""
        return {old: new for old, new in self._cache.items() if old and new and old != new}

    def translate(self, actions: Iterable[str | None]) -> list[str | None]:
        """Translate the actions of records; one that is not known stays, and is refused by the decoder."""
        cache = self._cache
        found: list[str | None] = []
        for action in actions:
            if action not in cache:
                name = self._one(action or "")
                if len(cache) > 10_000:  # not a column of actions
                    found.append(name)
                    continue
                cache[action] = name
            found.append(cache[action])
        return found

    def is_known(self, action: object) -> bool:
        """Whether an action is one of the configuration's after translation."""
        return isinstance(action, str) and self._one(action) in self._known

    def are_actions(self, sample: Sequence[str | None]) -> bool:
        """Whether a column holds actions: one value of its sample is known, and there are few or most of them are.

        The other values are refused as unknown actions: a column of dislikes must not count as likes because the
        configuration lacks half of its names.
        """
        counts = Counter(value for value in sample if value)
        known = counts.total() - sum(self.unknown_in(sample).values())
        return known > 0 and (len(counts) <= _MAX_ACTIONS or known * 2 > counts.total())

    def unknown_in(self, sample: Iterable[str | None]) -> Counter[str]:
        """The values of a sample that are no known actions, with their number."""
        return Counter(value for value in sample if value and self._one(value) not in self._known)

    def note(self, column: str, sample: Sequence[str | None], *, used: bool) -> list[str]:
        """What to say about a column of actions whose names are not all known; nothing where they are.

        >>> ActionNames(["view"]).note("event", ["view", "fly", "fly"], used=True)
        ['unknown actions in event: fly (2) of the first 3']
        """
        unknown = self.unknown_in(sample)
        if not unknown:
            return []
        named = ", ".join(f"{name[:_SHOWN]} ({count})" for name, count in unknown.most_common(_NAMED))
        named += (", …" if len(unknown) > _NAMED else "") + f" of the first {len(sample)}"
        if used:
            return [f"unknown actions in {column}: {named}"]
        return [f"no known action in {column}: {named}; --actions {unknown.most_common(1)[0][0][:_SHOWN]}=NAME maps it"]

    def _one(self, action: str) -> str:
        if action in self._given:
            return self._given[action]
        if action in self._known:
            return action
        for name in _plain(action):
            if name in self._known:
                return name
            if (synonym := _SYNONYMS.get(name, "")) in self._known:
                return synonym
        return action


def _plain(action: str) -> tuple[str, str]:
    """The action in lower case with underscores, and its last part: `com.shop.viewed` is `viewed`.

    >>> _plain("Product Viewed"), _plain("com.shop.viewed")[1]
    (('product_viewed', 'product_viewed'), 'viewed')
    """
    whole = re.sub(r"[\s_-]+", "_", action.strip().lower())
    return whole, re.split(r"[./:#]", whole)[-1]


def parse_actions(text: str) -> dict[str, str]:
    """Read `--actions old=new,…`.

    >>> parse_actions("pv=view, buy=purchase")
    {'pv': 'view', 'buy': 'purchase'}
    """
    found: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        old, equals, new = (piece.strip() for piece in part.partition("="))
        if not (old and equals and new):
            raise SourceError(f"--actions {part}: expected OLD=NEW, the file's name and the configuration's")
        if old in found:
            raise SourceError(f"--actions {text}: {old} is there twice")
        found[old] = new
    return found


__all__ = ["ActionNames", "parse_actions"]
