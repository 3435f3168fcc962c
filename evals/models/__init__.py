"""Load models and prepare their prompts.

loading        models and processors
prompt_styles  how a model expects a question, and how it writes boxes
boxes          the formats of boxes
image_view     the part of an image that a model sees
video_prompts  prompts about videos
greedy         answers, unless the model computes NaN
cache          the KV cache in a model's output
devices        where a model computes, also if it is offloaded
tensors        what a tensor is stored in, also if it is quantised
bundled        paths of what a clone has and a wheel has not
"""
