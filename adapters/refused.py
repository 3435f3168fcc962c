"""Classes of transformers that have no adapter: why, or which of their parts has one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenprune.adapters.record import records

_ENCODER_DECODER = "it is an encoder-decoder: visual tokens are in an encoder, not in the language model's sequence"
_CROSS_ATTENTION = "its language model reads visual tokens by cross-attention; they are not in its sequence"

_PAST_HOOKS = (
    "its generate() passes embeddings to the language model and bypasses the base model, where pruning starts, so "
    "nothing would be pruned"
)
_OWN_PLACES = (
    "its text model gets the places of the visual tokens as image_embeds_position_mask, inserts the features itself, "
    "and derives position IDs from the unpruned prompt"
)

#: Class -> why visual-token pruning makes no sense there.
NEVER = {
    "BlipForConditionalGeneration": _CROSS_ATTENTION,
    "EvollaForProteinText2Text": "it reads proteins, and has no visual tokens",
    "Florence2ForConditionalGeneration": _ENCODER_DECODER,
    "IdeficsForVisionText2Text": _CROSS_ATTENTION,
    "Mistral4ForCausalLM": "it reads text only; as the language model of a Mistral3ForConditionalGeneration it can be",
    "MllamaForConditionalGeneration": _CROSS_ATTENTION,
    "Pix2StructForConditionalGeneration": _ENCODER_DECODER,
    "PPFormulaNetForConditionalGeneration": _ENCODER_DECODER,
    "T5Gemma2ForConditionalGeneration": _ENCODER_DECODER,
    "UdopForConditionalGeneration": _ENCODER_DECODER,
    "VisionEncoderDecoderModel": _ENCODER_DECODER,
}

#: Class -> what no adapter can handle yet.
NOT_YET = {
    "Blip2ForConditionalGeneration": _PAST_HOOKS,
    "ChameleonForConditionalGeneration": (
        "its base model is also its language model: no call separates the features from the decoder layers, where "
        "tokens could be dropped"
    ),
    "GitForCausalLM": (
        "its text model itself puts the visual tokens before the text, without placeholder tokens that say where"
    ),
    "InstructBlipForConditionalGeneration": _PAST_HOOKS,
    "InstructBlipVideoForConditionalGeneration": _PAST_HOOKS,
    "Kosmos2ForConditionalGeneration": _OWN_PLACES,
    "Kosmos2_5ForConditionalGeneration": _OWN_PLACES,
}

#: Name endings of classes whose head picks or labels tokens by their places in the unpruned prompt.
PLACED_HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")


def parts() -> dict[str, str]:
    """Class -> the part of it that can be pruned, from the records of all families."""
    return dict(record.part_of.split(".") for record in records().values() if record.part_of)


def is_refused(names: Sequence[str]) -> bool:
    """Whether a class is known to have no adapter, from its own name and those of its base classes."""
    known = NEVER.keys() | NOT_YET.keys() | parts().keys()
    return any(name in known or name.endswith(PLACED_HEADS) for name in names)


def refusal(names: Sequence[str], installed: Iterable[str] = (), whole: str | None = None) -> str:
    """Return why a model is refused, and what to do instead.

    names: the names of the model's class and its base classes.
    installed: the classes that installed packages have adapters for.
    whole: the class in the same module that can be pruned; None if there is none.
    """
    never = next((name for name in names if name in NEVER), None)
    if never is not None:
        return f"{names[0]} cannot be pruned: {NEVER[never]}."
    not_yet = next((name for name in names if name in NOT_YET), None)
    if not_yet is not None:
        return f"{names[0]} is not supported yet: {NOT_YET[not_yet]}. `tokenprune models` lists those that are."
    if any(name.endswith(PLACED_HEADS) for name in names):
        return (
            f"{names[0]} cannot be pruned: its head reads tokens at their places in the unpruned prompt. Patch the "
            f"class that generates, with the same base model, pad prompts on the left, and apply the head to the last "
            f"hidden state."
        )
    part = next((known[name] for known in [parts()] for name in names if name in known), None)
    if part is not None:
        return f"{names[0]} combines several models; .{part} sees the images. Patch that: patch(model.{part}, ...)."
    if whole is not None:
        return (
            f"{names[0]} is not the class that answers about images: {whole} is. Patch the whole model, not a part of "
            f"it such as model.model. {whole}.from_pretrained loads it; AutoModel and AutoModelForCausalLM may not."
        )
    others = ", ".join(sorted(installed))
    packages = f", and installed packages have one for {others}" if others else ""
    return (
        f"no model adapter for {names[0]}. `tokenprune models` lists the classes that have one{packages}. If the "
        f"checkpoint needs trust_remote_code, load its conversion to transformers' format instead, often named -hf. If "
        f"it is a vision-language model of transformers, not a wrapper around one, try the generic adapter, which is "
        f"exact for many but not tested on this class:\n"
        f"    tokenprune.patch(model, strategy, adapter=tokenprune.GenericAdapter)\n"
        f"To add an adapter, see adapters/README.md."
    )
