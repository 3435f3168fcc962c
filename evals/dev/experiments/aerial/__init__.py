"""BackgroundPruning on aerial photographs.

photographs  the photographs, with a box around every tree
measure      how many trees pruning keeps
draw         a figure of what each strategy keeps
"""
