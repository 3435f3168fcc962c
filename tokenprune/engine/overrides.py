"""Attributes of one model instance that override a method, for what hooks on modules cannot see.

They are objects rather than closures, so that a copy or pickle of the model gets its own override.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import CANDIDATE_GENERATOR, HIDDEN_STATE_GENERATORS
from tokenprune.adapters.wrappers import CHECKPOINTED, check_generates_itself
from tokenprune.engine.call import CallContext
from tokenprune.engine.compiling import check_not_traced, dynamo_disabled
from tokenprune.errors import PruningError, TokenPruneError, UnsupportedError
from tokenprune.sequence.packing import IGNORED_LABEL, Packing

if TYPE_CHECKING:
    from tokenprune.engine.prefill import Prefill


class MethodOverride(ABC):
    """Overrides a method of one module by `override` until `remove`.

    What somebody has overridden this with in turn, as accelerate's hooks do, still calls it after `remove`: then it
    only calls what it overrode.

    only_instances: whether its class does not have the method. Without it, the constructor raises UnsupportedError for
        a module that does not have it either.
    """

    only_instances: ClassVar[bool] = False

    def __init__(self, module: nn.Module, name: str) -> None:
        self._module, self._name, self._removed = module, name, False
        self._overridden = vars(module).get(name)  # an attribute of the instance, as accelerate sets one
        if not self.only_instances and self.original is None:
            raise UnsupportedError(
                f"{type(module).__name__} has no {name}(), which tokenprune must override to prune this model. Report "
                f"it with your transformers version, and install an earlier one meanwhile."
            )

    @property
    def original(self) -> Any:
        """What is overridden: the instance's attribute or, if it had none, the method that its class has now."""
        if self._overridden is not None:
            return self._overridden
        method = getattr(type(self._module), self._name, None)
        return method and partial(method, self._module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.original(*args, **kwargs) if self._removed else self.override(*args, **kwargs)

    @abstractmethod
    def override(self, *args: Any, **kwargs: Any) -> Any:
        """What is done instead of `original`."""

    def install(self) -> MethodOverride:
        setattr(self._module, self._name, self)
        return self

    def remove(self) -> None:
        self._removed = True
        if vars(self._module).get(self._name) is not self:
            return
        delattr(self._module, self._name)
        if self._overridden is not None:
            setattr(self._module, self._name, self._overridden)


class ForwardOverride(MethodOverride):
    """Overrides a module's forward. Neither the module nor its name, weights or hooks change."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module, "forward")

    @property
    def __wrapped__(self) -> Any:  # `inspect` looks there for the arguments, which accelerate reads, and the function
        return self.original


class ModelForward(ForwardOverride):
    """The forward of the patched model. Where it is called past the model's hooks, as by PEFT up to version 0.20, it
    does what they do; they are needed where somebody has replaced it meanwhile, as Liger Kernel does.

    Like the bound method in whose place it is, it has a module and a function. accelerate wraps the function and binds
    it again: in mixed precision to the module, of which copies then get their own, and in regional compilation to a
    compiled twin. The model's hooks go with the module, so the function is that of what is overridden.
    """

    def __init__(self, prefill: Prefill, context: CallContext) -> None:
        super().__init__(prefill.model)
        self._prefill, self._context = prefill, context
        self._language_model = prefill.adapter.language_model
        self._is_base = prefill.adapter.core is prefill.model

    @property
    def __self__(self) -> nn.Module:
        return self._module

    @property
    def __func__(self) -> Any:  # an AttributeError if what is overridden has none
        return type(self._module).forward if self._overridden is None else self._overridden.__func__

    @property
    def __code__(self) -> Any:  # torch.export reads it before it calls the model
        return self.__func__.__code__

    def override(self, *args: Any, **kwargs: Any) -> Any:
        if not self._past_hooks(args, kwargs) or not self._is_base:
            # The compiler keeps what is called inside of a `try` out of its graphs.
            compiling = torch.compiler.is_compiling()
            output = self.original(*args, **kwargs) if compiling else self._watched(args, kwargs)
            if self._removed:
                self._check_pruned()
            return output
        output = None
        try:
            self._prefill.before_base_model(self._module, args, kwargs)
            output = self.original(*args, **kwargs)
        finally:
            self._prefill.after_base_model(self._module, args, kwargs, output)
        return output

    def _watched(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The output. Whatever is raised, the call is over. If the patch is removed between decoder layers, the next
        one gets shortened hidden states with arguments of full length, and torch's error does not say why."""
        try:
            return self.original(*args, **kwargs)
        except BaseException as error:
            if self._removed and isinstance(error, Exception) and not isinstance(error, TokenPruneError):
                self._check_pruned(error)
            self._prefill.end_forward()  # at Ctrl-C, torch calls none of the base model's hooks
            self._context.drop()
            raise

    @dynamo_disabled
    def _past_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        check_not_traced()
        self._context.cut_off = False
        if torch.is_grad_enabled():
            self._check_runs_once()
        if "prepare_inputs_for_generation" in vars(self._module):  # somebody has replaced it, as PEFT does
            check_generates_itself(self._module)
        past = self._context.unprunable is None
        if past:
            self._prefill.before_model(self._module, args, kwargs)
        return past

    def _check_runs_once(self) -> None:
        """Raise PruningError if the backward pass would run the language model again without what was pruned."""
        language_model = self._prefill.adapter.language_model
        if language_model is not self._language_model and CHECKPOINTED in language_model._modules:
            raise PruningError(
                "activation checkpointing was put around the language model after patch(), and would run it again "
                "without pruning. Call patch() again."
            )

    @dynamo_disabled
    def _check_pruned(self, error: Exception | None = None) -> None:
        """Raise PruningError if the patch was removed during a call, before its images were pruned by every stage.
        error: what the call raised, if anything."""
        forward = self._prefill.end_forward()
        cut_off, self._context.cut_off = self._context.cut_off, False
        if forward is not None and forward.incoming.visual:
            stages = forward.stages
            cut_off |= forward.report is None
            cut_off |= stages is not None and (error is not None or bool(stages.undecided))
        if cut_off:
            raise patch_removed_during_call() from error


def patch_removed_during_call() -> PruningError:
    """The error of a call whose patch was removed before its images were pruned."""
    return PruningError(
        "another thread or a hook removed or replaced the patch before this call had pruned its images. Call the model "
        "again."
    )


def not_pruned(adapter: ModelAdapter, begun: bool) -> PruningError:
    """The error of a base model with images whose language model was called past this patch. begun: whether the patch
    was installed when the base model was called."""
    if not begun:
        return patch_removed_during_call()
    return PruningError(
        f"{type(adapter.model).__name__} got images, but its language model was called in a way that "
        f"{type(adapter).__name__} does not know, so nothing was pruned. Remove the patch, and report it with your "
        f"transformers version."
    )


class ContinuousBatching(MethodOverride):
    """Refuses continuous batching, which gives the model no images and a cache that cannot be pruned."""

    def override(self, *args: Any, **kwargs: Any) -> Any:
        raise UnsupportedError(
            "a patched model does not support continuous batching (generate_batch): transformers gives it no images, "
            "patched or not. Call generate with a padded batch, or remove the patch."
        )


class AssistedDecoding(MethodOverride):
    """Refuses generators of candidate tokens that read the hidden states of a prompt with images, because pruning drops
    some of them. If the strategy reads the text of the prompt, which candidates would lengthen, none are proposed
    before the model has seen the prompt.

    reads_text: whether the strategy reads the text of the prompt.
    """

    def __init__(self, adapter: ModelAdapter, reads_text: bool) -> None:
        super().__init__(adapter.model, CANDIDATE_GENERATOR)
        self._adapter, self._reads_text = adapter, reads_text

    def override(self, *args: Any, **kwargs: Any) -> Any:
        generator = self.original(*args, **kwargs)
        refused = type(generator).__name__ in HIDDEN_STATE_GENERATORS
        if not refused and not self._reads_text:
            return generator
        call = {**kwargs["model_kwargs"], "input_ids": kwargs["input_ids"]}
        if all(self._adapter.visual_mask(modality, call) is None for modality in self._adapter.modalities):
            return generator
        if refused:
            raise UnsupportedError(
                f"{type(generator).__name__} proposes tokens from the hidden states of the whole prompt, and pruning "
                f"leaves a part of them. Generate without it, or with prompt_lookup_num_tokens or an assistant_model "
                f"that reads tokens only."
            )
        generator.get_candidates = after_prompt(generator.get_candidates)
        return generator


def after_prompt(propose: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function that proposes candidate tokens: those of its first call, which would follow the prompt, are left
    out. It is called all the same, because an assistant must see the prompt."""
    first = True

    def proposed(input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal first
        found = propose(input_ids, *args, **kwargs)
        if not first:
            return found
        first = False
        return input_ids, None  # as transformers itself says that there are none

    return proposed


class LossFunction(MethodOverride):
    """A model's loss function for the logits of its last call, where they are fewer than the labels, which are written
    for the unpruned sequence. Labels of another length are of a part that the caller has cut out, and stay as they are.

    function: the loss function that the model uses now, which the attribute `name` may only be the setter of.
    """

    only_instances = True

    def __init__(self, model: nn.Module, name: str, function: Callable[..., Any], context: CallContext) -> None:
        super().__init__(model, name)
        self._function, self._context = function, context

    @property
    def original(self) -> Any:
        return self._function

    def override(self, logits: Tensor, labels: Tensor | None, *args: Any, **kwargs: Any) -> Any:
        packing, shifted = self._packing(logits), kwargs.get("shift_labels")
        if packing is not None and labels is not None and labels.shape[1:] == (packing.n_columns,):
            labels = prune_labels(labels, packing)
        if packing is not None and shifted is not None and shifted.shape[1:] == (packing.n_columns,):
            kwargs["shift_labels"] = prune_shifted(shifted, packing)
        return self.original(logits, labels, *args, **kwargs)

    @dynamo_disabled
    def _packing(self, logits: Tensor) -> Packing | None:
        """Which columns the logits are of; None if of all, as those of another model are."""
        packing = self._context.packing
        return packing if packing is not None and logits.shape[:2] == packing.columns.shape else None


def prune_labels(labels: Tensor, packing: Packing) -> Tensor:
    """The labels of the columns that are left. A loss compares every label with the logits of the column before it, so
    a label that follows a hole is ignored."""
    after_a_hole = nn.functional.pad(~packing.valid, (1, 0))[:, :-1]
    columns = packing.columns.to(labels.device)
    return labels.gather(1, columns).masked_fill((~packing.valid | after_a_hole).to(labels.device), IGNORED_LABEL)


def prune_shifted(labels: Tensor, packing: Packing) -> Tensor:
    """The same of labels that are already next to the logits they are compared with."""
    unshifted = nn.functional.pad(labels, (1, 0), value=IGNORED_LABEL)[:, :-1]
    return nn.functional.pad(prune_labels(unshifted, packing)[:, 1:], (0, 1), value=IGNORED_LABEL)
