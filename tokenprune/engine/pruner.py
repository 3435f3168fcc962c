"""Registers every hook of a patch, and removes them again.

For every patch:

Prefill             the model, its base model and its language model: what happens to one prompt
ModelForward        the model's forward, where it is called past the hooks
VisionRecorder      the vision tower and the feature functions: records of images while they are encoded
LossFunction        the loss: shortens labels to match the logits; not for models that denoise
generating          assisted decoding and continuous batching: refused where nothing could be pruned

For a strategy that asks for it:

BatchPruning        between the layers of a vision tower that takes a batch of tiles
RowPruning          before and between the layers of a tower that takes all patches in one row
StagePruning        between decoder layers
LayerSkipping       around decoder layers

For a model that denoises:

CanvasSteps         the denoiser of a block diffusion model, which reads what was cached
PolicySteps         the action expert of a robot policy, which does the same
"""

from __future__ import annotations

from functools import partial

from torch import nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import CANDIDATE_GENERATOR, CONTINUOUS_BATCHING, loss_function
from tokenprune.adapters.decoder.denoising import BlockDiffusion, Policy
from tokenprune.adapters.towers.layers import BatchLayers
from tokenprune.engine.cache.pruned import Views
from tokenprune.engine.call import CallContext
from tokenprune.engine.denoising.canvas import CanvasSteps
from tokenprune.engine.denoising.plan import check_denoises
from tokenprune.engine.denoising.policy import PolicySteps
from tokenprune.engine.generating import candidate_generator, refuse_continuous_batching
from tokenprune.engine.model_methods import LossFunction, ModelForward
from tokenprune.engine.patch import FunctionOverride, Patch, Register
from tokenprune.engine.prefill import Prefill
from tokenprune.engine.recording import VisionRecorder
from tokenprune.engine.stages.pruning import StagePruning
from tokenprune.engine.stages.skipping import LayerSkipping
from tokenprune.engine.tower.batch_pruning import BatchPruning
from tokenprune.engine.tower.row_pruning import RowPruning
from tokenprune.report import Report
from tokenprune.sequence.position_ids import PositionIds
from tokenprune.strategy import StagedStrategy, Strategy


class Pruner(Patch):
    """The hooks of one model whose visual tokens are pruned.

    Raises SettingError or UnsupportedError for a strategy whose mechanisms the model does not allow.
    """

    attribute = "_tokenprune_pruner"

    def __init__(self, model: nn.Module, adapter: ModelAdapter, strategy: Strategy, position_ids: PositionIds) -> None:
        super().__init__(model)
        self.adapter, self.strategy = adapter, strategy
        self.position_ids: PositionIds = position_ids
        adapter.decoder.check_masks()
        adapter.decoder.check_numbering(position_ids)
        if strategy.biases_attention:
            adapter.decoder.check_bias()
        context = CallContext(Views())
        self._context = context
        self.prefill = Prefill(model, adapter, strategy, position_ids, context)
        self.recorder = VisionRecorder(adapter, strategy, context)
        self.tower = tower_pruning(strategy, adapter, context)
        if strategy.requires_expert or (isinstance(strategy, StagedStrategy) and strategy.step_stages):
            check_denoises(strategy, adapter)
        denoises, acts = isinstance(adapter, BlockDiffusion), isinstance(adapter, Policy)
        self.prefill.keeps_ends = not (denoises or acts)  # these read only the cache
        self.actions = PolicySteps(strategy, adapter, context, self.prefill) if acts else None
        self.canvas = CanvasSteps(strategy, adapter, context, self.prefill) if denoises else None
        if isinstance(strategy, StagedStrategy):
            stages = StagePruning(strategy, adapter, context)
            skipping = LayerSkipping(strategy, adapter, stages.capture.layers)
            self.prefill.stages = stages if stages.stages else None
            self.prefill.skipping = skipping if skipping.layers else None

    @property
    def report(self) -> Report | None:
        """The report of the last forward with visual tokens, of this thread or, if it had none, of any thread."""
        return self.prefill.report

    def remove(self) -> None:
        forward = self.prefill.end_forward()
        self._context.drop()
        if forward is not None and forward.incoming.visual:
            self._context.cut_off = forward.report is None or forward.stages is not None
        super().remove()

    def end(self) -> None:
        """Remove it for good. Calls in progress in other threads raise PruningError, unless another patch has replaced
        this one."""
        super().end()
        if Pruner.on(self.model) is None:
            self._context.views.withdraw()

    def register(self, register: Register) -> None:
        self.prefill.register(register)
        register(ModelForward(self.prefill, self._context).install())
        captured = self.recorder.register(register)
        if self.tower is not None:
            captured += self.tower.register(register)
        if self.prefill.skipping is not None:
            self.prefill.skipping.register(register)
        if self.prefill.stages is not None:  # around skipped layers, too: what they pass on is pruned
            captured += self.prefill.stages.register(register)
        if self.actions is not None:
            self.actions.register(register)
        if self.canvas is not None:
            self.canvas.register(register)
        if self.canvas is None and self.actions is None:  # their losses are not over the pruned sequence
            register(LossFunction(self.model, *loss_function(self.adapter.model), self._context).install())
        if hasattr(self.model, CANDIDATE_GENERATOR):
            generator = partial(candidate_generator, self.adapter, "text_attention" in self.strategy.needs)
            register(FunctionOverride(self.model, CANDIDATE_GENERATOR, generator).install())
        if hasattr(self.model, CONTINUOUS_BATCHING):
            register(FunctionOverride(self.model, CONTINUOUS_BATCHING, refuse_continuous_batching).install())
        names = {module: name for name, module in self.model.named_modules()}
        self.recorder.modules = {names[module]: module for module in captured if module in names}


def tower_pruning(strategy: Strategy, adapter: ModelAdapter, context: CallContext) -> BatchPruning | RowPruning | None:
    """What prunes before and between the tower's layers; None if the strategy does not ask for it."""
    between = adapter.tower_layers if "kept_in_tower" in strategy.needs else None
    if isinstance(between, BatchLayers):
        return BatchPruning(strategy, adapter, between, context)
    if between is None and "kept_before_tower" not in strategy.needs:
        return None
    return RowPruning(strategy, adapter, between, context)
