"""What identifies the questions of a run."""

from pathlib import Path

from helpers.files.evals import sample_image

from tokenprune.evals.storage.provenance import tasks_identity
from tokenprune.evals.tasks.xlrs import Letters


def test_several_right_letters_are_a_right_answer(tmp_path: Path) -> None:
    """A run that resumed after they had changed would have answers scored by the former and by the new ones."""
    sample_image().save(tmp_path / "1.png")
    one, same, other = (
        tasks_identity(
            [Letters(task="xlrs", id="xlrs-1", images=(tmp_path / "1.png",), text="?", letters=frozenset(letters))]
        )
        for letters in ("AB", "BA", "AC")
    )
    assert one == same != other
