"""tokenprune in lmms-eval: `lmms-eval --model tokenprune --model_args pretrained=...,strategy=fopru,keep_ratio=0.25`.

Only lmms-eval imports this module, through its entry point.
"""

# pyright: reportMissingImports=false

import time
from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from lmms_eval.protocol import ChatMessages
from lmms_eval.utils import Collator
from tqdm import tqdm

from tokenprune.errors import SettingError, UnsupportedError
from tokenprune.evals.harness.model import Conversation, HarnessModel, Reply


class Chat(lmms):
    """The model behind `--model tokenprune`: tasks give whole conversations.

    arguments: HarnessModel's. Each process of `accelerate launch` has its own device. lmms-eval passes
    max_batch_size to every model; it is for models that search for a batch size, and ignored here.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str = "",
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        device_map: str | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        if not pretrained:
            raise SettingError("no model given; write --model_args pretrained=PATH_OR_ID")
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise SettingError(f"batch_size={batch_size!r} is not a number of questions; write --batch_size 8")
        self.batch_size = int(batch_size)
        self.accelerator = Accelerator()
        self.device = self.accelerator.device  # where lmms-eval gathers counts from all processes
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        own = str(self.accelerator.device) if self._world_size > 1 or device is None else device
        self._pruned_model: HarnessModel | None = HarnessModel(
            pretrained, device=own, device_map=device_map, **arguments
        )

    @property
    def pruned_model(self) -> HarnessModel:
        assert self._pruned_model is not None, "the model is gone after clean()"
        return self._pruned_model

    def clean(self) -> None:
        self._pruned_model = None
        super().clean()

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answer the requests; those with the same generation arguments share batches.

        lmms-eval's results then hold, for each question, the tokens that entered the language model and those of the
        answer, and under "throughput" the mean numbers of visual and of kept tokens.
        """
        ordered = Collator([request.args for request in requests], _longest_first, self._generation, grouping=True)
        replies: list[Reply] = []
        start = time.perf_counter()
        with tqdm(total=len(requests), disable=self.rank != 0, desc="Model Responding") as progress:
            for batch in ordered.get_batched(n=self.batch_size):
                replies += self.pruned_model.answers(list(map(self._conversation, batch)), self._generation(batch[0]))
                progress.update(len(batch))
        if replies:
            _log(replies, time.perf_counter() - start)
        counts = [TokenCounts(input_tokens=reply.n_read, output_tokens=reply.n_written) for reply in replies]
        return ordered.get_original(
            [GenerationResult(reply.text, count) for reply, count in zip(replies, counts, strict=True)]
        )

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Return the mean negative log-likelihood of a token; lmms-eval takes the smallest as the answer."""
        losses = []
        for context, target, doc_to_visual, doc_id, task, split in (request.args for request in requests):
            doc = self.task_dict[task][split][doc_id]
            continuation = target if isinstance(target, str) else target(doc)
            losses.append(self.pruned_model.loss(_turn(doc_to_visual(doc), context), continuation))
        return losses

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        raise UnsupportedError("multi-round tasks are not supported; choose a task with a single round")

    def _generation(self, args: tuple[Any, ...]) -> dict[str, Any]:
        return args[2]

    def _conversation(self, args: tuple[Any, ...]) -> Conversation:
        _, doc_to_messages, _, doc_id, task, split = args
        return ChatMessages(messages=doc_to_messages(self.task_dict[task][split][doc_id])).to_hf_messages()


class Simple(Chat):
    """The model with `--force_simple`, which likelihood-based multiple choice needs: images followed by text."""

    is_simple = True

    def _generation(self, args: tuple[Any, ...]) -> dict[str, Any]:
        return args[1]

    def _conversation(self, args: tuple[Any, ...]) -> Conversation:
        context, _, doc_to_visual, doc_id, task, split = args
        return _turn(doc_to_visual(self.task_dict[task][split][doc_id]), context)


def _turn(visuals: Sequence[Any] | None, text: str) -> Conversation:
    kinds = {str: "video", dict: "audio"}  # lmms-eval tells them apart by type
    images = [{"type": kinds.get(type(visual), "image"), "image": visual} for visual in visuals or ()]
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]


def _longest_first(args: tuple[Any, ...]) -> int:
    return -len(args[0])


def _log(replies: Sequence[Reply], seconds: float) -> None:
    n_written = sum(reply.n_written for reply in replies)
    means = {
        "visual_tokens": sum(reply.cost.n_visual for reply in replies) / len(replies),
        "kept_visual_tokens": sum(reply.cost.n_kept for reply in replies) / len(replies),
        "visual_tokens_a_layer": sum(reply.cost.n_mean for reply in replies) / len(replies),
    }
    log_metrics(seconds, n_written, n_written / seconds, means)
