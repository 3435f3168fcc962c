"""The word for a thing's colour."""

from __future__ import annotations

import cv2
import numpy as np


def color_word(rgba: np.ndarray) -> str | None:
    """Return the colour of more than 60 % of the solid pixels, by hue, saturation and value, or None."""
    solid = rgba[:, :, 3] > 128
    hsv = cv2.cvtColor(rgba[:, :, :3], cv2.COLOR_RGB2HSV)[solid].astype(int)
    hue, saturation, value = hsv[:, 0] * 2, hsv[:, 1], hsv[:, 2]
    vivid = (saturation > 90) & (value > 60)
    words = {
        "black": value < 65,
        "white": (saturation < 40) & (value > 190),
        "gray": (saturation < 40) & (value >= 75) & (value <= 175),
        "red": vivid & ((hue < 13) | (hue >= 346)) & (saturation > 130),
        "orange": vivid & (hue >= 16) & (hue < 38) & (value > 180) & (saturation > 140),
        "brown": (saturation > 60) & (hue >= 8) & (hue < 42) & (value >= 40) & (value < 165),
        "yellow": vivid & (hue >= 44) & (hue < 68) & (value > 150),
        "green": vivid & (hue >= 72) & (hue < 165),
        "blue": vivid & (hue >= 185) & (hue < 255),
        "purple": vivid & (hue >= 262) & (hue < 300),
        "pink": (saturation > 60) & (hue >= 308) & (hue < 346) & (value > 120),
    }
    word, share = max(((w, float(m.mean())) for w, m in words.items()), key=lambda pair: pair[1])
    return word if share > 0.6 else None
