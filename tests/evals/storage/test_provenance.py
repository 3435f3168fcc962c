"""The identities of a run's model and questions."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.files.evals import sample_image
from helpers.tiny import tiny_llava

import tokenprune
from tokenprune.evals.bench.record import about
from tokenprune.evals.storage.provenance import class_identity, kernels, model_identity, tasks_identity
from tokenprune.evals.tasks.xlrs import Letters


def test_several_right_letters_are_a_right_answer(tmp_path: Path) -> None:
    """If a run resumed after they changed, its answers would be scored partly by the old and partly by the new ones."""
    sample_image().save(tmp_path / "1.png")
    one, same, other = (
        tasks_identity(
            [Letters(task="xlrs", id="xlrs-1", images=(tmp_path / "1.png",), text="?", letters=frozenset(letters))]
        )
        for letters in ("AB", "BA", "AC")
    )
    assert one == same != other


@pytest.fixture
def precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("precision")
def test_a_lower_precision_of_float32_products_is_named() -> None:
    """Answers and times depend on it. Full precision is not, as in records from before."""
    model = tiny_llava()
    for record in (lambda: model_identity(model), lambda: about(model, "tiny", "sdpa", 24)):
        torch.set_float32_matmul_precision("highest")
        full = record()
        assert "float32_matmul" not in full
        torch.set_float32_matmul_precision("high")
        assert record() in [full | {"float32_matmul": name} for name in ("tf32", "high")]  # newer PyTorch, and older


def test_the_code_of_a_strategy_of_the_package_is_part_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes one in a clone changes no version, and would get the answers of the code before."""
    source, changed = inspect.getsource, tokenprune.DivPrune
    kinds = changed, tokenprune.Compose(tokenprune.PixelPrune(), changed(0.5))
    before = list(map(class_identity, kinds))
    monkeypatch.setattr(inspect, "getsource", lambda kind: source(kind) + "# changed" * (kind is changed))
    assert before[0].keys() == {"class"}
    assert all(was != class_identity(kind) for was, kind in zip(before, kinds, strict=True))


def test_kernels_from_the_hub_are_part_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers 5.25 takes them by default; USE_HUB_KERNELS=0 forbids it."""
    model = tiny_llava()
    monkeypatch.setattr(type(model), "use_kernels", False)
    without = kernels(model)
    monkeypatch.setattr(type(model), "use_kernels", True)
    assert kernels(model) == without | {"llava": without["llava"] | {"layers": "hub"}}
