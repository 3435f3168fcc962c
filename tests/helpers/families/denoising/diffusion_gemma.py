"""DiffusionGemma: an encoder, most of whose layers have a window, and a denoiser that reads its cache."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from helpers.families.base import IMAGE
from helpers.families.gemma4 import Gemma4MoE

from .base import Closed, Denoised, DenoisingFamily

CANVAS, STEPS, WINDOW = 6, 4, 14
CLOSED = torch.finfo(torch.float32).min


class DiffusionGemma(Gemma4MoE, DenoisingFamily):
    """Two canvases of six tokens, four steps each."""

    video_sizes = ()
    modes = ("denoised", "loop")

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        model = DenoisingFamily.build(self, attention, seed, n_layers)
        with torch.no_grad():
            for layer in model.model.encoder.language_model.layers:  # the denoiser has the same weights
                layer.self_attn.q_norm.weight.fill_(0.5)
        return model

    def set_answers(self, settings: Any, config: Any) -> None:
        """Make `generate` run at least four steps."""
        settings.eos_token_id = None
        settings.max_denoising_steps, settings.stability_threshold, settings.confidence_threshold = STEPS, 9, 1e-9

    def position_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return position IDs, which count padding."""
        return torch.arange(inputs["input_ids"].shape[1]).expand_as(inputs["input_ids"])

    def denoise(self, model: Any, inputs: dict[str, Any], mode: str) -> Denoised:
        torch.manual_seed(5)
        steps: list[dict[str, Any]] = []
        outputs: list[Tensor] = []

        def look(module: nn.Module, args: Any, kwargs: Any) -> None:
            steps.append({name: kwargs.get(name) for name in ("decoder_input_ids", "self_conditioning_logits")})

        def answer(module: nn.Module, args: Any, output: Any) -> None:
            outputs.append(model.final_logit_softcapping * torch.tanh(output / model.final_logit_softcapping))

        # generate calls the model's forward directly, bypassing its hooks.
        hooks = [model.model.register_forward_pre_hook(look, with_kwargs=True)]
        hooks.append(model.lm_head.register_forward_hook(answer))
        try:
            with torch.no_grad():
                if mode == "denoised":
                    whole = model.generate(**inputs, max_new_tokens=2 * CANVAS).sequences
                    for step in steps[STEPS:]:
                        step["new"] = whole[:, -2 * CANVAS : -CANVAS]
                else:
                    self.by_hand(model, inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return Denoised(steps, torch.stack(outputs, 1))

    def prompt_masks(self, model: Any, inputs: dict[str, Any]) -> Any:
        """Return the masks of the encoder's layers, as `generate` makes them."""
        return model.model.encoder.create_masks_for_generate(
            model.config,
            torch.empty(*inputs["input_ids"].shape, 0),
            inputs["attention_mask"],
            None,
            torch.arange(inputs["input_ids"].shape[1])[None],
            inputs["mm_token_type_ids"],
        )

    def by_hand(self, model: Any, inputs: dict[str, Any]) -> None:
        """Denoise one canvas. The first call also encodes the prompt, and the model numbers the canvas itself."""
        generator = torch.Generator(torch.get_default_device()).manual_seed(7)
        canvas = torch.randint(2, IMAGE, (len(inputs["input_ids"]), CANVAS), generator=generator)
        seen = torch.cat([inputs["attention_mask"], torch.ones_like(canvas)], 1)
        given, logits = dict(inputs), None
        given["attention_mask"] = self.prompt_masks(model, inputs)
        given["cache"] = DynamicCache(config=model.config.text_config)
        for _ in range(STEPS):
            out = model(**given, decoder_input_ids=canvas, decoder_attention_mask=seen, self_conditioning_logits=logits)
            given, logits = {"cache": out.cache}, out.logits

    def expected(self, model: Any, inputs: dict[str, Any], done: Denoised, closed: Closed) -> Tensor:
        text = model.config.text_config
        before, text._attn_implementation = text._attn_implementation, "eager"
        try:
            with torch.no_grad():
                return self._replayed(model, inputs, done, closed)
        finally:
            text._attn_implementation = before

    def _replayed(self, model: Any, inputs: dict[str, Any], done: Denoised, closed: Closed) -> Tensor:
        cache = DynamicCache(config=model.config.text_config)
        real, length = inputs["attention_mask"].bool(), inputs["input_ids"].shape[1]
        ids = torch.arange(length)[None] if closed.position_ids is None else closed.position_ids
        self._encode(model, inputs, real, ids, cache, closed)
        ahead = torch.zeros(len(real), dtype=torch.long) if closed.ahead is None else closed.ahead
        outputs, n_columns = [], length
        for number, step in enumerate(done.steps):
            places = torch.arange(n_columns, n_columns + CANVAS)[None] - ahead[:, None]
            if number and number % STEPS == 0:  # the next canvas begins: the previous one is encoded
                real = torch.cat([real, torch.ones(len(real), CANVAS, dtype=torch.bool)], 1)
                new = {"input_ids": step["new"]}
                self._encode(model, new, real, places, cache, closed)
                n_columns += CANVAS
                places = places + CANVAS
            hidden = closed.at(0, number)
            hidden = torch.nn.functional.pad(hidden, (0, n_columns - length)) | ~real
            full = torch.zeros(len(real), 1, CANVAS, n_columns + CANVAS)
            full[..., :n_columns] = full[..., :n_columns].masked_fill(hidden[:, None, None], CLOSED)
            window = full[..., max(n_columns - WINDOW + 1, 0) :]
            out = model(
                decoder_input_ids=step["decoder_input_ids"],
                self_conditioning_logits=step["self_conditioning_logits"],
                decoder_attention_mask={"full_attention": full, "sliding_attention": window},
                decoder_position_ids=places,
                cache=cache,
            )
            outputs.append(out.logits)
        return torch.stack(outputs, 1)

    def _encode(
        self, model: Any, inputs: dict[str, Any], real: Tensor, ids: Tensor, cache: Any, closed: Closed
    ) -> None:
        """Fill the cache, with dropped tokens masked in every layer."""
        encoder, (batch, n_new) = model.model.encoder, inputs["input_ids"].shape
        masks = encoder.create_masks_for_generate(
            model.config, torch.empty(batch, n_new, 0), real, cache, ids, inputs.get("mm_token_type_ids")
        )
        dropped = torch.nn.functional.pad(closed.dropped[0], (0, real.shape[1] - closed.dropped[0].shape[1]))
        itself = torch.zeros(n_new, real.shape[1])
        itself[:, -n_new:] = torch.eye(n_new)
        for kind, mask in masks.items():
            width = mask.shape[-1]
            hidden = dropped[:, None, None, -width:]
            mask = mask.masked_fill(hidden, CLOSED)
            masks[kind] = mask.masked_fill(hidden & itself[:, -width:].bool(), 0.0)
        given = {name: value for name, value in inputs.items() if name not in ("attention_mask", "mm_token_type_ids")}
        encoder(**given, attention_mask=masks, position_ids=ids, cache=cache)
