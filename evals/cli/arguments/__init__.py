"""How commands and demos parse their arguments.

options     options that several of them share
settings    options read from a file
parser      help texts, and types of arguments
completion  shell completion
"""
