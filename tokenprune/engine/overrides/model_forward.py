"""The override of the patched model's own forward."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from tokenprune.adapters.wrappers import CHECKPOINTED, check_generates_itself
from tokenprune.engine.call import CallContext
from tokenprune.engine.compiling import check_not_traced, dynamo_disabled
from tokenprune.engine.overrides.override import ForwardOverride
from tokenprune.engine.patch import patch_removed_during_call
from tokenprune.engine.prefill import Prefill
from tokenprune.errors import PruningError, TokenPruneError


class ModelForward(ForwardOverride, partial[Any]):
    """The forward of the patched model. When it is called past the model's hooks, as PEFT does up to version 0.20, it
    does their work; the hooks are needed once somebody has replaced it, as Liger Kernel does.

    Like the bound method it replaces, it has a module and a function. accelerate wraps the function and binds it again:
    in mixed precision to the module, so that a copy of the module gets its own, and in regional compilation to a
    compiled twin. From version 1.16 on, it does so only to methods and partials; hence it is a partial of what it
    overrides. The model's hooks go with the module, so the function is the overridden method's.
    """

    def __new__(cls, prefill: Prefill, context: CallContext) -> ModelForward:
        model = prefill.model
        overridden = vars(model).get("forward")
        return super().__new__(cls, *((type(model).forward, model) if overridden is None else (overridden,)))

    def __init__(self, prefill: Prefill, context: CallContext) -> None:
        super().__init__(prefill.model)
        self._prefill, self._context = prefill, context
        self._language_model = prefill.adapter.language_model
        self._is_base = prefill.adapter.core is prefill.model

    def __reduce__(self) -> tuple[Any, ...]:  # past this class's `__new__`
        _, _, state = super().__reduce__()
        return partial.__new__, (type(self), self.func), state

    @property
    def __self__(self) -> nn.Module:
        return self._module

    @property
    def __func__(self) -> Any:  # raises AttributeError if the overridden attribute has none
        return type(self._module).forward if self._overridden is None else self._overridden.__func__

    @property
    def __code__(self) -> Any:  # torch.export reads it before it calls the model
        return self.__func__.__code__

    def override(self, *args: Any, **kwargs: Any) -> Any:
        if not self._past_hooks(args, kwargs) or not self._is_base:
            # The compiler keeps calls inside a `try` out of its graphs.
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
        """The output. If anything is raised, the call is over. If the patch is removed between decoder layers, the next
        layer gets shortened hidden states with full-length arguments, and torch's error does not say why."""
        outer, self._context.running = self._context.running, True
        try:
            return self.original(*args, **kwargs)
        except BaseException as error:
            if self._removed and isinstance(error, Exception) and not isinstance(error, TokenPruneError):
                self._check_pruned(error)
            self._prefill.end_forward()  # on Ctrl-C, torch calls none of the base model's hooks
            self._context.drop()
            raise
        finally:
            self._context.running = outer

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
        """Raise PruningError if the backward pass would run the language model again without pruning."""
        language_model = self._prefill.adapter.language_model
        if language_model is not self._language_model and CHECKPOINTED in language_model._modules:
            raise PruningError(
                "activation checkpointing was put around the language model after patch(), and would run it again "
                "without pruning. Call patch() again."
            )

    @dynamo_disabled
    def _check_pruned(self, error: Exception | None = None) -> None:
        """Raise PruningError if the patch was removed during a call, before every stage had pruned its images.

        error: what the call raised, if anything.
        """
        forward = self._prefill.end_forward()
        cut_off, self._context.cut_off = self._context.cut_off, False
        if forward is not None and forward.incoming.visual:
            stages = forward.stages
            cut_off |= forward.report is None
            cut_off |= stages is not None and (error is not None or bool(stages.undecided))
        if cut_off:
            raise patch_removed_during_call() from error
