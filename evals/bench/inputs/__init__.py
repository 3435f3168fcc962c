"""What is timed: models of real size with random weights, and prompts with images for them.

shapes    configurations
build     models of them
prompts   prompts with an image a row
rendered  drawn pages, tables and screens
"""
