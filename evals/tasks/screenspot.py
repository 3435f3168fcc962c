"""ScreenSpot (https://arxiv.org/abs/2401.10935) and ScreenSpot-v2 (https://arxiv.org/abs/2410.23218): where to click.

It reads the authors' `screenspot_PLATFORM.json` or `screenspot_PLATFORM_v2.json` (images in `screenspot_imgs/` or
`screenspotv2_image/`), and the Hub's rootsautomation/ScreenSpot and HongxinLi/ScreenSpot_v2. A box of numbers up to 1
is left, top, right, bottom in fractions, as on the Hub; any other is left, top, width, height in pixels. The layouts
follow the repositories and the Hub and were not checked against the real files.

The prompt is the model's own for boxes. A click is right if it is inside the true box: the centre of the answered box,
as in the script of SeeClick, or, in an answer without a box, the point `(x, y)` or `[x, y]` in the unit of the model's
boxes. Both were checked by running lmms-eval's, whose prompts ask for fractions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tokenprune.evals.boxes import Box, Size, centre, contains, within
from tokenprune.evals.models.image_view import full_view
from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.coco import check_inside, from_corner
from tokenprune.evals.reading.images import size_of
from tokenprune.evals.reading.records import Record, json_records
from tokenprune.evals.tasks.base.box import BoxQuestion
from tokenprune.evals.tasks.base.metric import Metric
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, hub, of_each_category

#: Source of a screenshot -> its platform; any other is a web site.
PLATFORMS = {"ios": "mobile", "android": "mobile", "macos": "desktop", "windows": "desktop"}


@dataclass(frozen=True, kw_only=True)
class Click(BoxQuestion):
    """Where to click. box: where a click is right, in pixels."""

    box: Box

    def score(self, answer: str) -> float | None:
        box = self.answered_box(answer)
        point = centre(box) if box else self.style.read_point(answer, self.size)
        return None if point is None else float(contains(self.box, point))


@dataclass(frozen=True)
class ScreenSpot(FileTask[Click]):
    """Accuracy, and that of text and icons on each platform."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = (Form(("screenspot_*.json",), json_records), *hub())

    def question(self, record: Record, folder: Path, style: Style) -> Click:
        if "image" in record:
            image = record.image()
        else:
            name = record.text("img_filename")
            image = record.find_image(folder, f"screenspot_imgs/{name}", f"screenspotv2_image/{name}")
        size = size_of(image)
        return Click(
            task=self.name,
            id=f"{self.name}-{record.place}",
            images=(image,),
            text=style.boxes.question.format(record.text("instruction")),
            split=record.split,
            category=f"{PLATFORMS.get(record.text('data_source'), 'web')} {record.text('data_type')}",
            max_new_tokens=style.boxes.max_new_tokens,
            size=size,
            style=style,
            box=_box(record.items("bbox"), size, record.where),
        )

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        of_each = of_each_category(answered)
        return super().metrics(answered) | {f"{kind} accuracy": Metric.of(of_each[kind]) for kind in sorted(of_each)}


def _box(numbers: Sequence[Any], size: Size, where: str) -> Box:
    """Return a published box in pixels. DataError, naming `where`, if it is not one."""
    if len(numbers) == 4 and all(isinstance(number, (int, float)) and number <= 1 for number in numbers):
        left, top, right, bottom = within(full_view(size).window, (numbers[0], numbers[1], numbers[2], numbers[3]))
        numbers = [left, top, right - left, bottom - top]
    box = from_corner(numbers, where)
    check_inside(box, size, where)
    return box
