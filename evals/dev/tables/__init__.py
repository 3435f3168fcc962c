"""The generated tables of the documentation, each made from stored results, or from what the
code declares.

accuracy   what pruning loses
speed      time and memory
catalogue  what each strategy keeps
served     the models that are pruned inside vLLM
sets       where published sets come from
"""
