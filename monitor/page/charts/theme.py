"""Colors of the page, in the light and in the dark theme."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, NamedTuple

OTHER: Final = -1  # the band of all intents without a color of their own


class Theme(NamedTuple):
    """Colors of the page that charts need."""

    ink: str
    soft: str
    line: str
    panel: str
    accent: str
    second: str
    third: str
    band: str
    lightness: tuple[float, float, float]  # of intents' colors, OKLCH
    chroma: float


LIGHT: Final = Theme(
    "#1d211c",
    "#5c6359",
    "#d9dad1",
    "#fdfdfa",
    "#0b7a6b",
    "#b4570f",
    "#8a8f86",
    "rgba(214,140,40,0.16)",
    (0.56, 0.68, 0.77),
    0.13,
)
DARK: Final = Theme(
    "#e8ece5",
    "#9ca59b",
    "#2c332f",
    "#161b19",
    "#4fd8c0",
    "#f2ab5c",
    "#7d867e",
    "rgba(242,171,92,0.16)",
    (0.62, 0.74, 0.84),
    0.12,
)


@lru_cache(maxsize=4096)  # every cell and every frame of a chart needs it
def intent_color(intent: int, theme: Theme) -> str:
    """A color that stays with an intent: hues by the golden angle, three lightnesses in turn.

    >>> intent_color(3, LIGHT) == intent_color(3, LIGHT) != intent_color(4, LIGHT)
    True
    """
    if intent == OTHER:
        return theme.line
    hue = math.radians((intent * 137.508 + 165) % 360)
    light = theme.lightness[intent % 3]
    return _oklch(light, theme.chroma, hue)


def _oklch(light: float, chroma: float, hue: float) -> str:
    """OKLCH as sRGB in hexadecimal, by the matrices of Ottosson (2020)."""
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    parts = []
    for value in linear:
        clipped = min(1.0, max(0.0, value))
        encoded = 12.92 * clipped if clipped <= 0.0031308 else 1.055 * clipped ** (1 / 2.4) - 0.055
        parts.append(round(encoded * 255))
    return "#" + "".join(f"{part:02x}" for part in parts)
