"""Labels of the unpruned prompt, in training.

loss        loss functions that get fewer logits than labels
fused_head  trainers that compare labels with hidden states themselves
"""
