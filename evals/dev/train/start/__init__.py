"""What the stages start from.

llava    tokenizer, processor and model of any shape, and how they are stored
model    a new, untrained model, and its processor
dinov2   the first blocks of the published tower, as a model
tower    that model, from the published file or a small copy, and its position embeddings
smollm   a language model that starts from SmolLM2's first layers
grow     a language model grown from version 1's
"""
