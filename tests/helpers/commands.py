"""The command `tokenprune`, called in this process."""

from typing import Any

import pytest

from tokenprune.__main__ import main


def command(*arguments: object) -> Any:
    """Return what the command exits with: 0, or the sentence that it ends with."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.code
