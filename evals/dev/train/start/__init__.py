"""What the stages start from.

llava    tokenizer, processor and model of any shape, and how they are stored
model    a new, untrained model, and its processor
dinov2   the published tower, and the model that its first blocks make
tower    that model, from the published file or a small copy, and its position embeddings
smollm   a language model that starts from SmolLM2's first layers
grow     a language model grown from version 1's
anchor   between the stages: visual tokens and words as version 1 reads them
heads    before stage two: linear heads fitted to what they are to read
"""
