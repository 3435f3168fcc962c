"""The prefills of `run.py` in this environment: unpruned, ideal, tokenprune's, and selection as in papers' code.

newest_side.py make FOLDER         saves the model
newest_side.py serve FOLDER DTYPE  times its prefills, see serve.py
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from serve import Answer, serve
from shape import AFTER, BEFORE, CONTEXTUAL, IMAGE, KEEP, N_VISUAL, TEXT, VISION, random_pixels, seeded, weights
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import tokenprune
from tokenprune.evals.models.cache import cache_in

#: Prefixes of weight names in the file -> in this version of transformers.
NAMES = {
    "language_model.lm_head.": "lm_head.",
    "language_model.model.": "model.language_model.",
    "multi_modal_projector.": "model.multi_modal_projector.",
    "vision_tower.": "model.vision_tower.",
}
STRATEGIES = {
    "FoPru": tokenprune.FoPru(keep=KEEP, layer=-2),
    "VisionZip": tokenprune.VisionZip(keep=KEEP, contextual=CONTEXTUAL / KEEP),
    "FlowCut": tokenprune.FlowCut(keep=KEEP),
    "FastV": tokenprune.FastV(keep=KEEP),
}


def make(folder: Path) -> None:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION), text_config=LlamaConfig(**TEXT), image_token_index=IMAGE
    )
    model = LlavaForConditionalGeneration(config)
    seeded(model)
    model.save_pretrained(folder)


def saved(folder: Path) -> Any:
    model = LlavaForConditionalGeneration(LlavaConfig.from_pretrained(folder))
    model.load_state_dict(weights(folder, NAMES), assign=True)
    return model.eval()


def called(model: Any, **inputs: Any) -> Answer:
    output = model(**inputs, use_cache=True, logits_to_keep=1)
    return output.logits[:, -1], cache_in(output)[1]


class Prefills:
    """The prefills that can be timed, by name, on a batch of prompts with different images."""

    def __init__(self, model: Any, batch: int = 1) -> None:
        self.model, self.pixels = model, random_pixels(model.dtype, batch)

    def named(self) -> dict[str, Any]:
        ours = {name: partial(self.patched, strategy) for name, strategy in STRATEGIES.items()}
        return {
            "unpruned": self.unpruned,
            "ideal": self.ideal,
            **ours,
            "unpruned, output_attentions": partial(self.eager_tower, N_VISUAL),
            "FoPru, output_attentions": partial(self.eager_tower, KEEP),
        }

    @contextmanager
    def unpruned(self) -> Iterator[Callable[[], Answer]]:
        ids = torch.tensor([[*BEFORE, *[IMAGE] * N_VISUAL, *AFTER]] * len(self.pixels))
        yield partial(called, self.model, input_ids=ids, pixel_values=self.pixels)

    @contextmanager
    def patched(self, strategy: tokenprune.Strategy) -> Iterator[Callable[[], Answer]]:
        with tokenprune.patch(self.model, strategy), self.unpruned() as prefill:
            yield prefill

    @contextmanager
    def ideal(self) -> Iterator[Callable[[], Answer]]:
        """The unpatched model, given only the first visual tokens."""
        tower = self.model.model.vision_tower

        def prefill() -> Answer:
            features = tower(self.pixels, output_hidden_states=True).hidden_states[-2][:, 1 : 1 + KEEP]
            return self.answered(features, torch.arange(KEEP).expand(len(features), -1))

        yield prefill

    @contextmanager
    def eager_tower(self, n_kept: int) -> Iterator[Callable[[], Answer]]:
        """As in the released code of many papers: the tower returns the attention of all its layers, and outside the
        model the embeddings are reduced to those that receive most attention."""
        tower = self.model.model.vision_tower
        before = tower.config._attn_implementation
        tower.set_attn_implementation("eager")

        def prefill() -> Answer:
            output = tower(self.pixels, output_hidden_states=True, output_attentions=True)
            scores = output.attentions[-2].mean(1).sum(1)[:, 1:]
            chosen = scores.topk(n_kept).indices.sort().values
            rows = torch.arange(len(chosen))[:, None]
            return self.answered(output.hidden_states[-2][:, 1:][rows, chosen], chosen)

        try:
            yield prefill
        finally:
            tower.set_attn_implementation(before)

    def answered(self, features: Tensor, kept: Tensor) -> Answer:
        """Run the language model on these visual tokens, with their original position IDs."""
        visual = self.model.model.multi_modal_projector(features)
        ids = (torch.tensor([text] * len(kept)) for text in (BEFORE, AFTER))
        before, after = map(self.model.get_input_embeddings(), ids)
        first = len(BEFORE) + N_VISUAL
        text = (torch.arange(len(BEFORE)), torch.arange(first, first + len(AFTER)))
        start, end = (part.expand(len(kept), -1) for part in text)
        numbers = torch.cat([start, kept + len(BEFORE), end], 1)
        return called(self.model, inputs_embeds=torch.cat([before, visual, after], 1), position_ids=numbers)


if __name__ == "__main__":
    what, folder, *rest = sys.argv[1:]
    if what == "make":
        make(Path(folder))
    else:
        model = saved(Path(folder)).to(getattr(torch, rest[0]))
        serve(lambda: lambda batch: Prefills(model, batch).named(), ["tokenprune-vlm"])
