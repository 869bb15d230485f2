"""The colour of a genre, the same in every picture and on every page."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

# Petroff, "Accessible color sequences for data visualization" (2021), the ten colours: told apart with every kind of
# colour vision, on light and on dark ground.
PETROFF10 = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
NEUTRAL = "#8a8f98"  # of "unknown", and of a genre that is not among those of the model
_LIGHTNESS_STEP = 0.22  # between the rounds through the ten colours where there are more genres


def colours(genres: Sequence[str]) -> dict[str, str]:
    """Return the colour of each genre as #rrggbb, in the order of a model's outputs."""
    return {genre: _colour(position) for position, genre in enumerate(genres)}


def text_on(colour: str) -> str:
    """Return black or white, whichever is easier to read on a colour (WCAG 2.2, relative luminance)."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in _rgb(colour)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


def _colour(position: int) -> str:
    rounds, place = divmod(position, len(PETROFF10))
    if not rounds:
        return PETROFF10[place]
    hue, lightness, saturation = colorsys.rgb_to_hls(*_rgb(PETROFF10[place]))
    lighter = (lightness + rounds * _LIGHTNESS_STEP - 0.2) % 0.7 + 0.2  # neither black nor white
    return "#" + "".join(f"{round(255 * value):02x}" for value in colorsys.hls_to_rgb(hue, lighter, saturation))


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue
