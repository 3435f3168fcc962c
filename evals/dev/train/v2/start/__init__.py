"""What the stages start from.

model    a new, untrained model, and its processor
tower    the vision tower, cut out of a published one, and its position embeddings
smollm   a language model that starts from SmolLM2's first layers
grow     a language model grown from version 1's
anchor   between the stages: visual tokens and words as version 1 reads them
heads    before stage two: linear heads fitted to what they are to read
"""
