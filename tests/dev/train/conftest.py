"""What scenes are drawn of."""

import pytest
from helpers.files.discs import discs_on_gray

from tokenprune.evals.dev.train.scenes.assets import Assets


@pytest.fixture(scope="session")
def assets() -> Assets:
    return discs_on_gray()
