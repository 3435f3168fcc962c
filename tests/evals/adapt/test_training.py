"""Steps of adapt: epochs, logits, smaller images, and what is trained."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import command
from helpers.families import FAMILIES
from helpers.files.evals import saved, tiny_processor
from helpers.files.own import write_own
from helpers.files.search import deep_llava
from helpers.tiny import prompt, tiny_llava
from helpers.training import adapted_llava, alone, fresh_llava
from torch import nn
from torch.nn.functional import interpolate
from transformers import TrainingArguments

import tokenprune
from tokenprune import FoPru
from tokenprune.errors import SettingError
from tokenprune.evals.adapt.adapt import Adapted, adapt
from tokenprune.evals.adapt.examples import by_image, labelled
from tokenprune.evals.adapt.logits import output_layer
from tokenprune.evals.adapt.loss import answer_loss
from tokenprune.evals.adapt.objective import Objective, Ratios
from tokenprune.evals.adapt.rows import Collator, Row
from tokenprune.evals.adapt.shrinking import Shrinking, applied
from tokenprune.evals.adapt.teaching import Distributions, teacher_distributions
from tokenprune.evals.adapt.training import Hyperparameters, PrunedTrainer, Rows, arguments, highest_rise
from tokenprune.evals.run.downsample import at_size, full_grid, shrunk_grid
from tokenprune.evals.run.questions import load_questions
from tokenprune.sequence.packing import IGNORED_LABEL


def step_of(batch: int, folder: Path) -> TrainingArguments:
    """Return the arguments of a training of one step."""
    training = Hyperparameters("decoder", rank=4, steps=1, batch=batch, accumulate=1, learning_rate=1e-4)
    return arguments(folder, training, save_every=1, seed=0, cpu=True, autocast=False)


def test_a_rise_of_the_loss_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even if the loss falls again later. Single high losses and short trainings do not count."""

    def by_step(*losses: float) -> list[tuple[int, float]]:
        return [(44 * (i + 1), loss) for i, loss in enumerate(losses)]

    risen = by_step(2.0, 2.0, *[2.2] * 10, *[1.5] * 10)
    assert highest_rise(risen) == (44 * 4, pytest.approx(2.2))
    assert highest_rise(by_step(*[2.0 - 0.02 * i for i in range(20)])) is None
    assert highest_rise(by_step(2.0, 2.0, 2.19, 1.9, *[1.8] * 18)) is None
    assert highest_rise(by_step(1.0, *[2.0] * 18)) is None
    monkeypatch.setattr("tokenprune.evals.adapt.adapt.adapt", lambda *_, **__: Adapted(tmp_path, risen))
    assert command("adapt", "--model", "any", "--data", tmp_path, "--output", tmp_path, "--learning-rate", 2e-3) == 0
    assert "The loss had risen to 2.200 by step 176: try a --learning-rate below 0.002." in capsys.readouterr().out


def test_ratios_depend_on_the_step_alone() -> None:
    ratios = Ratios(0.1, 0.5, 0.25, seed=3)
    drawn = [ratios.at(step) for step in range(2000)]
    assert drawn[77] == ratios.at(77)
    pruned = [ratio for ratio in drawn if ratio < 1]
    assert 0.2 < drawn.count(1.0) / 2000 < 0.3
    assert 0.1 <= min(pruned) < 0.11 < 0.45 < max(pruned) <= 0.5
    assert sorted(pruned)[len(pruned) // 2] == pytest.approx((0.1 * 0.5) ** 0.5, rel=0.1)  # uniform in the logarithm


def test_one_of_several_gpus_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The Trainer would copy the model to all GPUs that it may use, and copies would share the hooks of a patch."""
    own = TrainingArguments.__post_init__

    def with_two_gpus(self: TrainingArguments) -> None:
        own(self)
        self._n_gpu = 2

    monkeypatch.setattr(TrainingArguments, "__post_init__", with_two_gpus)
    assert step_of(1, tmp_path).n_gpu == 1


def test_rows_of_similar_size_share_a_batch(tmp_path: Path) -> None:
    line = {"image": "1.png", "answer": "05"}
    write_own(tmp_path, *(line | {"question": " ".join(["12"] * (n % 10 + 1))} for n in range(40)))
    rows = Rows(alone(labelled(load_questions(tmp_path))))
    objective = Objective(tokenprune.FoPru(keep_ratio=0.1), Ratios(0.1, 0.5, 0.25), labels=True, head=None)
    trainer = PrunedTrainer(
        nn.Linear(1, 1), step_of(4, tmp_path), data_collator=list, train_dataset=rows, objective=objective
    )
    batches = [[row.size[1] for row in batch] for batch in trainer.get_train_dataloader()]
    assert sorted(size for batch in batches for size in batch) == sorted(rows[n].size[1] for n in range(40))
    spread = sum(max(batch) - min(batch) for batch in batches) / len(batches)
    assert spread < 12  # characters; for random batches it is about 16


# Logits of only the learned tokens: the same loss and gradients with less memory.


def with_labels(inputs: dict[str, Any], n: int = 2) -> dict[str, Any]:
    """Return prompts whose last tokens are the answers."""
    labels = inputs["input_ids"].clone()
    labels[:, :-n] = IGNORED_LABEL
    return {**inputs, "labels": labels}


@pytest.fixture
def model() -> Any:
    return adapted_llava(tiny_llava())


def step(model: Any, batch: dict[str, Any], head: Any, targets: Distributions | None, keep: int | None) -> Any:
    """Return the loss, gradients and logits of a step."""
    model.zero_grad(set_to_none=True)
    with answer_loss(model, head, targets):
        if keep is None:
            out = model(**batch)
        else:
            with tokenprune.patch(model, FoPru(keep=keep)):
                out = model(**batch)
    out.loss.backward()
    return out.loss.detach(), [one.grad for one in model.parameters() if one.grad is not None], out.logits


@pytest.mark.parametrize("keep", [None, 5])
@pytest.mark.parametrize("labels", [True, False])
def test_loss_and_gradients_stay(model: Any, labels: bool, keep: int | None) -> None:
    batch, head = with_labels(prompt([1, 2])), model.get_base_model().lm_head
    assert output_layer(model.get_base_model(), batch) is head
    targets = None if labels else teacher_distributions(model, batch, head)
    if targets is not None:
        assert torch.equal(targets.logs, teacher_distributions(model, batch).logs)
    loss, gradients, hidden = step(model, batch, head, targets, keep)
    expected, others, logits = step(model, batch, None, targets, keep)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients, others)
    assert len(gradients) > 0
    assert hidden.shape == (*logits.shape[:2], head.in_features)  # logits are never computed
    assert "forward" not in vars(head)
    assert model(**batch).logits.shape[2] == head.out_features


def test_models_that_change_logits_have_no_such_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES["gemma3n"]  # a soft cap
    assert output_layer(family.build("sdpa"), with_labels(family.prompt([1]))) is None
    model = tiny_llava()
    monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    assert output_layer(model, with_labels(prompt([1]))) is None
    monkeypatch.undo()
    model.loss_function = lambda *args, **kwargs: torch.tensor(0.0)  # it may not support selected places
    assert output_layer(model, with_labels(prompt([1]))) is None


def test_the_layer_is_itself_again_after_an_error(model: Any) -> None:
    batch = with_labels(prompt([1]))
    base = model.get_base_model()
    own, head = base.loss_function, output_layer(base, batch)
    with pytest.raises(ZeroDivisionError), answer_loss(model, head):
        raise ZeroDivisionError
    assert base.loss_function is own
    assert "forward" not in vars(head)


# Training on smaller images: the batches are those that a processor makes of smaller images.


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images with one question each, and the first with a second question."""
    asked = [(f"{n}.png", "07 08" if n % 2 else "05") for n in (0, *range(8))]
    lines = ({"image": name, "question": f"1{n}", "answer": answer} for n, (name, answer) in enumerate(asked))
    return write_own(tmp_path_factory.mktemp("own"), *lines)


@pytest.mark.parametrize("per_image", [1, 8])
@pytest.mark.parametrize("with_cls", [False, True])
def test_batches_are_those_of_smaller_images(per_image: int, with_cls: bool, data: Path) -> None:
    model: Any = fresh_llava()
    processor: Any = tiny_processor()
    if with_cls:
        model.config.vision_feature_select_strategy = processor.vision_feature_select_strategy = "full"
    rows = [Row(tuple(labelled(group))) for group in by_image(load_questions(data)[:4], per_image)]
    batch, seen = Collator(processor, torch.float32)(rows), list[dict[str, Any]]()
    whole = model(**batch).loss
    with applied(model, Shrinking(processor, 1.0), 0.3):
        hook = model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
        shrunk = model(**batch).loss
        hook.remove()
    grid = shrunk_grid(processor, 0.3)
    assert grid < full_grid(processor)
    height, width = (n * processor.patch_size for n in grid)
    expected = Collator(at_size(processor, height, width), torch.float32)(rows)
    pixels = interpolate(batch["pixel_values"], (height, width), mode="bicubic", antialias=True)
    assert seen[0].keys() == expected.keys()
    for name, value in (expected | {"pixel_values": pixels}).items():
        torch.testing.assert_close(seen[0][name], value, msg=name)
    assert shrunk.isfinite()
    assert shrunk != whole
    assert model(**batch).loss == whole


def test_rows_with_different_numbers_of_images_are_refused(data: Path) -> None:
    model, processor = deep_llava(), tiny_processor()
    batch = Collator(processor, torch.float32)([Row(tuple(labelled(load_questions(data)[1:2])))] * 2)
    batch["input_ids"][0][batch["input_ids"][0] == model.config.image_token_id] = 1
    with applied(model, Shrinking(processor, 0.3), 0.3), pytest.raises(SettingError, match="downsample: rows"):
        model(**batch)


@pytest.mark.parametrize("labels", [True, False])
def test_a_training(labels: bool, data: Path, tmp_path: Path) -> None:
    few: dict[str, Any] = {"steps": 12, "batch": 4, "learning_rate": 2e-2, "keep_ratio": 0.2, "whole": 0.0}
    folder = saved(deep_llava(), tmp_path / "model")
    found = adapt(folder, data=data, output=tmp_path / "out", strategy="downsample", labels=labels, **few)
    losses = [loss for _, loss in found.losses]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    identity = json.loads((tmp_path / "out" / "adapt.json").read_text())
    assert json.loads((tmp_path / "out" / "adapter" / "adapt.json").read_text()) == identity
    assert identity["strategy"] == "downsample"
    with pytest.raises(SettingError, match="holds another training, with strategy="):
        adapt(folder, data=data, output=tmp_path / "out", strategy="fopru", labels=labels, **few)
