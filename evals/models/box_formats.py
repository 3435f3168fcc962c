"""Boxes as models write them: the prompt for a box, and reading and writing one."""

import math
import re
from dataclasses import dataclass

from tokenprune.evals.boxes import Box, Point, Size


@dataclass(frozen=True)
class BoxFormat:
    """A model's prompt for a box, and how it writes one.

    question: the prompt, with `{}` for the expression.
    pattern: matches a box; its four groups are the numbers.
    unit: the number for the far side of the image; None if the numbers are pixels.
    written: the format string for the four numbers.
    middle: added to each number before dividing; 0.5 if a number is a bin and stands for its middle.
    largest: the largest number that the model can write, if below the far side of the image.
    rows_first: whether the numbers are y1, x1, y2, x2.
    """

    question: str
    pattern: re.Pattern[str]
    unit: int | None
    written: str
    middle: float = 0.0
    largest: float = math.inf
    rows_first: bool = False
    max_new_tokens: int = 32

    def fractions(self, answer: str, shown: Size) -> Box | None:
        """Return the first box in `answer` as fractions of the image that the model saw, None if there is none.

        shown: the size of that image in pixels. A box with swapped corners does not count.
        """
        match = self.pattern.search(answer)
        if match is None:
            return None
        width, height = self._units(shown)
        x1, y1, x2, y2 = self._ordered([float(value) + self.middle for value in match.groups()])
        box = x1 / width, y1 / height, x2 / width, y2 / height
        return box if box[0] <= box[2] and box[1] <= box[3] else None

    def point(self, answer: str, shown: Size) -> Point | None:
        """Return the first `(x, y)` or `[x, y]` in `answer`, in the unit of the boxes, as fractions of the image that
        the model saw; None if there is none."""
        match = _POINT.search(answer)
        if match is None:
            return None
        x, y = (float(value) + self.middle for value in (match.groups()[::-1] if self.rows_first else match.groups()))
        width, height = self._units(shown)
        return x / width, y / height

    def write(self, fractions: Box, shown: Size) -> str:
        """Return the text from which `fractions` reads this box, as exactly as the format allows."""
        width, height = self._units(shown)
        x1, y1, x2, y2 = fractions
        numbers = [x1 * width, y1 * height, x2 * width, y2 * height]
        numbers = [min(max(number - self.middle, 0.0), self.largest) for number in numbers]
        return self.written.format(*self._ordered(numbers))

    def _units(self, shown: Size) -> Size:
        return shown if self.unit is None else (self.unit, self.unit)

    def _ordered(self, numbers: list[float]) -> list[float]:
        x1, y1, x2, y2 = numbers
        return [y1, x1, y2, x2] if self.rows_first else numbers


def _four(number: str) -> str:
    return r"\s*,\s*".join([f"({number})"] * 4)


_POINT = re.compile(r"[\[(]\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*[\])]")
_FRACTION = r"0?\.\d+|0|1(?:\.0+)?"
_FRACTIONS = re.compile(rf"\[\s*{_four(_FRACTION)}\s*\]")
_PAIRS = re.compile(r"\(\s*(\d{1,4})\s*,\s*(\d{1,4})\s*\)\s*,\s*\(\s*(\d{1,4})\s*,\s*(\d{1,4})\s*\)")
_JSON = re.compile(rf"\[\s*{_four(r'[0-9]{1,5}(?:[.][0-9]+)?')}\s*\]")

#: The bundled model writes hundredths of the side. Checked by reading, never with the models' weights, were:
#: - shikra: the paper's prompt for REC (table 9, in which the image itself replaces the words "the given image")
#:   and three decimals without spaces, against shikras/shikra's box_process_function.py;
#: - minigpt-v2: prompt, pattern, hundredths and optional spaces, against Vision-CAIR/MiniGPT-4's eval_ref.py;
#: - qwen-vl: prompt, pattern and the far side as 999, against QwenLM/Qwen-VL's evaluate_grounding.py;
#: - internvl: prompt, against MoritzLaurer/open_models_special_prompts on the Hub;
#: - glm-v: prompt, thousandths, and brackets of any kind, against zai-org/GLM-V's README;
#: - deepseek-vl2: prompt and the far side as 999, against an author's explanation (discussion 2 of AskUI/PTA-1, Hub).
#: The others follow the models' cards and papers. Qwen2-VL's chat models have no published prompt for boxes: their
#: markers are published, and users found that they write thousandths. Left out are Gemma 3 and 4, Qwen-Omni, MiniCPM-V,
#: Molmo 2, Kimi K2.5 and Ovis, of which no prompt with a stated unit was found.
BOX_FORMATS = {
    "llava": BoxFormat(
        "Please provide the bounding box coordinate of the region this sentence describes: {}",
        _FRACTIONS,
        unit=1,
        written="[{:.2f}, {:.2f}, {:.2f}, {:.2f}]",
    ),
    "bundled": BoxFormat(
        "Where is {}?",
        re.compile(r"(?<![\d.])(?<!\d )(\d{1,2}) (\d{1,2}) (\d{1,2}) (\d{1,2})(?! ?\d|\.\d)"),
        unit=100,
        written="{:02.0f} {:02.0f} {:02.0f} {:02.0f}",
        middle=0.5,
        largest=99.0,
    ),
    "shikra": BoxFormat(
        "In the given image, could you find and tell me the coordinates of {}?",
        _FRACTIONS,
        unit=1,
        written="[{:.3f},{:.3f},{:.3f},{:.3f}]",
        max_new_tokens=64,
    ),
    "minigpt-v2": BoxFormat(
        "[refer] give me the location of {}",
        re.compile(r"\{\s*<(\d{1,3})>\s*<(\d{1,3})>\s*<(\d{1,3})>\s*<(\d{1,3})>\s*\}"),
        unit=100,
        written="{{<{:.0f}><{:.0f}><{:.0f}><{:.0f}>}}",
    ),
    "qwen-vl": BoxFormat("<ref>{}</ref><box>", _PAIRS, unit=999, written="({:.0f},{:.0f}),({:.0f},{:.0f})"),
    "qwen2-vl": BoxFormat(
        "<|object_ref_start|>{}<|object_ref_end|>",
        _PAIRS,
        unit=1000,
        written="({:.0f},{:.0f}),({:.0f},{:.0f})",
    ),
    "qwen2.5-vl": BoxFormat(
        "Locate {} in this image and output the bbox coordinates in JSON format.",
        _JSON,
        unit=None,
        written="[{:.0f}, {:.0f}, {:.0f}, {:.0f}]",
        max_new_tokens=96,
    ),
    "qwen3-vl": BoxFormat(
        'Locate every object that matches the description "{}" in the image. Report bbox coordinates in JSON format.',
        _JSON,
        unit=1000,
        written="[{:.0f}, {:.0f}, {:.0f}, {:.0f}]",
        max_new_tokens=96,
    ),
    "internvl": BoxFormat(
        "Please provide the bounding box coordinate of the region this sentence describes: <ref>{}</ref>",
        _JSON,
        unit=1000,
        written="[{:.0f}, {:.0f}, {:.0f}, {:.0f}]",
        max_new_tokens=64,
    ),
    "glm-v": BoxFormat(
        "Help me to locate {} in the image and give me its bounding boxes.",
        re.compile(rf"[\[({{<]\s*{_four(r'[0-9]{1,4}')}\s*[\])}}>]"),
        unit=1000,
        written="[{:.0f}, {:.0f}, {:.0f}, {:.0f}]",
        max_new_tokens=64,
    ),
    "deepseek-vl2": BoxFormat(
        "<|ref|>{}<|/ref|>",
        _JSON,
        unit=999,
        written="[{:.0f}, {:.0f}, {:.0f}, {:.0f}]",
        max_new_tokens=64,
    ),
    "paligemma": BoxFormat(
        "detect {}",
        re.compile(r"<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})>"),
        unit=1024,
        written="<loc{:04.0f}><loc{:04.0f}><loc{:04.0f}><loc{:04.0f}>",
        largest=1023.0,
        rows_first=True,
    ),
}
