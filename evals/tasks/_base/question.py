"""What the runner needs to know of one question, whatever set it comes from."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from PIL import Image

from tokenprune.evals.tasks._read.images import StoredImage, open_image


@dataclass(frozen=True, kw_only=True)
class Question(ABC):
    """One question about one image or several, and how to score an answer to it.

    `task` is the name of its task in `TASKS`, `id` names the question in results and in errors. `text` is
    what the model reads after the images, exactly as it was published. `split` and `category` are the set's own
    words ("" where it has none). Questions of one `group` count as one where the set says so. `max_new_tokens` is as
    long as a right answer can be.
    """

    task: str
    id: str
    images: tuple[StoredImage, ...]
    text: str
    split: str = ""
    category: str = ""
    group: str = ""
    max_new_tokens: int = 32

    @abstractmethod
    def score(self, answer: str) -> float | None:
        """Return 0 to 1, or None where the answer cannot be read at all (counted apart, worth 0)."""

    def open_images(self) -> list[Image.Image]:
        """Return the decoded images, upright and RGB."""
        return [open_image(image) for image in self.images]
