"""What the stages start from.

llava    tokenizer, processor and model of any shape, and how they are stored
model    the processor, and an untrained model of a checkpoint's shape
dinov2   the first blocks of the published tower, as a model
tower    that model, from the published file or a small copy, and its position embeddings
grow     a language model grown from version 1's
"""
