"""GLM-5-Next in vLLM with a plain decoder instead of its own, whose kernels run only on GPUs: a Llama that uses the
language model's position IDs."""

# pyright: reportMissingImports=false

from torch import Tensor
from torch.nn.functional import rms_norm

NAME = "TokenPruneGlm5Next"


def serve_plainly() -> None:
    """Call it after our plug-in has registered the model."""
    from vllm import ModelRegistry
    from vllm.models.glm5next.common import multimodal

    from tokenprune.serving.vllm.models.glm5_next import PrunedGlm5Next

    class WithoutStates(PrunedGlm5Next):
        """The stand-in has no linear attention."""

        has_inner_state = is_hybrid = False

    multimodal.fused_q_kv_rmsnorm = norm_both  # vLLM's kernel takes minutes in Triton's interpreter
    ModelRegistry.register_model(NAME, WithoutStates)
    ModelRegistry.register_model("Glm5NextForCausalLM", "vllm.model_executor.models.llama:LlamaForCausalLM")


def norm_both(
    query: Tensor, key: Tensor, query_weight: Tensor, key_weight: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Normalise queries and keys of a vision tower layer, each (patches * heads, width)."""
    given = ((query, query_weight), (key, key_weight))
    normed = [rms_norm(states, weight.shape, weight, epsilon) for states, weight in given]
    return normed[0], normed[1]
