"""Questions of a user's own, in a folder as every command reads it."""

import json
from pathlib import Path
from typing import Any

from helpers.files.evals import sample_image


def write_own(folder: Path, *lines: dict[str, Any], size: tuple[int, int] = (60, 40)) -> Path:
    """Write the lines and the images that they name, all of which differ, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    named = [line["image"] if isinstance(line["image"], list) else [line["image"]] for line in lines]
    for number, image in enumerate(dict.fromkeys(name for names in named for name in names)):
        sample_image(size, (number, number, number + 20, number + 15)).save(folder / image)
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder
