"""`tokenprune adapt`: teach a model to answer from fewer visual tokens, in a plain PEFT adapter.

examples     questions with the answers to learn
rows         questions about one image in one row of a batch
lora         which layers are trained
logits       logits where an answer is learnt, and nowhere else
generation   the unpruned model's answers to the questions of a row, all at once
own_answers  its answers to all questions, on disk
teaching     what the model learns without right answers: its own distributions
loss         what is minimised
objective    what a training is for, and how the model is pruned meanwhile
training     transformers' Trainer on a model that is patched again at every step
estimate     memory and time, before anything starts
adapt        the whole training, resumable
"""
