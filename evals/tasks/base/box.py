"""Questions that are answered with a box."""

from abc import ABC
from dataclasses import dataclass

from tokenprune.evals.boxes import Box, Size
from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.tasks.base.question import Question


@dataclass(frozen=True, kw_only=True)
class BoxQuestion(Question, ABC):
    """A question about one image of this `size`, for a model of this `style`, answered with a box."""

    size: Size
    style: Style

    def answered_box(self, answer: str) -> Box | None:
        """Return the box in the answer, in pixels of the image; None if there is none."""
        return self.style.read(answer, self.size)
