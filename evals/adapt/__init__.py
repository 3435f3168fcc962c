"""`tokenprune adapt`: teach a model to answer from fewer visual tokens, in a plain PEFT adapter.

examples     questions with the answers to learn
rows         questions about one image in one row of a batch
lora         which layers are trained
logits       computes logits only where an answer is learnt
generation   the unpruned model's answers to the questions of a row, all at once
own_answers  its answers to all questions, stored on disk
teaching     targets without labels: the model's own distributions
loss         what is minimised
shrinking    smaller images instead of fewer tokens
objective    what is trained, and how the model is pruned meanwhile
training     transformers' Trainer, with a new patch at every step
estimate     memory and time, before anything starts
record       what an adapter was trained with
settings     the arguments of `adapt`, and options of the command
adapt        the whole procedure, resumable
"""
