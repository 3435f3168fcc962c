"""Load models and prepare their prompts. `tokenprune/prompts.py` applies a processor's chat template.

loading         models and processors
checkpoint      what is known about a checkpoint before it is loaded
mistral_format  checkpoints in Mistral's own format, which only vLLM reads
guesses         guesses a checkpoint's model type from its name
dtypes          the data types that models are loaded in
prompt_styles   how a model expects a question, and how it writes boxes
box_formats     the formats in which models write boxes
image_view      the part of an image that a model sees
video_prompts   prompts about videos
greedy          greedy answers; raises if the model computes NaN
cache           the KV cache in a model's output
overrides       another forward or mode for a module, in a `with` block
tensors         what a tensor is stored in, even if quantised
bundled         paths of files that only a clone has, no wheel
"""
