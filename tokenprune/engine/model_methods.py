"""Overrides of the patched model's forward and loss function.

`ModelForward` looks odd because other packages replace or wrap a model's forward, each in its own way. What each part
prevents:

the work of the hooks, done again   PEFT (up to 0.20) calls the forward past them: nothing would be pruned
a partial, `__self__`, `__func__`   accelerate binds the forward again, to a copy or a compiled twin: that would run the
                                    original, with the original's hooks
`__reduce__`                        a pickle would call `__new__` without the patch
`__code__`                          torch.export reads it before it calls the model, and would fail before it is refused
no `try` while compiling            the compiler keeps what is in one out of its graphs: the model would be slow
`_watched`                          after Ctrl-C, torch calls none of the base model's hooks: the next call would take
                                    itself for a part of this one
`_check_pruned`                     a patch removed between decoder layers leaves hidden states and arguments of unequal
                                    lengths, and torch's error does not say why
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tokenprune.adapters.conventions import CHECKPOINTED, check_generates_itself
from tokenprune.engine.call import CallContext
from tokenprune.engine.failures import patch_removed_during_call
from tokenprune.engine.labels import prune_labels, prune_shifted
from tokenprune.engine.patch import ForwardOverride, MethodOverride, check_not_traced, dynamo_disabled
from tokenprune.engine.prefill import Prefill
from tokenprune.errors import PruningError, TokenPruneError
from tokenprune.sequence.packing import Packing


class ModelForward(ForwardOverride, partial[Any]):
    """The forward of the patched model. When it is called past the model's hooks, it does their work; the hooks are
    needed once somebody has replaced it, as Liger Kernel does.

    Like the bound method it replaces, it has a module and a function. accelerate wraps the function and binds it again,
    from version 1.16 on only if it is a method or a partial; hence it is a partial of what it overrides. The model's
    hooks go with the module, so the function is the overridden method's.
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
        past = self._context.arguments.unprunable is None
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


class LossFunction(MethodOverride):
    """A model's loss function, which shortens labels written for the unpruned sequence to match the logits of the last
    call. Labels of any other length belong to a part that the caller has cut out, and stay as they are.

    function: the loss function that the model uses now; the attribute `name` may be no more than its setter.
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
        """The columns that the logits belong to; None for all, and for logits of another model."""
        packing = self._context.outcome.packing
        return packing if packing is not None and logits.shape[:2] == packing.columns.shape else None
