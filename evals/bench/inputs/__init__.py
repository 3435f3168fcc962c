"""What is timed: models of real size with random weights, and prompts with images for them.

shapes    configs
build     models with these configs
prompts   prompts with one image per row
rendered  drawn pages, tables and screens
"""
