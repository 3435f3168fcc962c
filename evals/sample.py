"""What the runner needs to know of one question, whatever set it comes from."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from PIL import Image

from tokenprune.evals.pictures import open_picture


@dataclass(frozen=True)
class Sample(ABC):
    """One question about one picture, and how to score an answer to it.

    `id` names the sample in results and in errors; `split` is the set's own word for it ("" where it has none).
    """

    task: ClassVar[str]
    metric: ClassVar[str]

    id: str
    image: Path
    split: str

    @property
    @abstractmethod
    def question(self) -> str:
        """The text that the model reads beside the picture."""

    @abstractmethod
    def score(self, answer: str) -> float | None:
        """Return 0 to 1, or None where the answer cannot be read at all (counted apart, worth 0)."""

    def picture(self) -> Image.Image:
        """Return the decoded picture, upright and RGB."""
        return open_picture(self.image)
