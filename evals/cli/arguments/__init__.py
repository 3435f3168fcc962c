"""What commands and demos parse arguments with.

options     options that several of them share
settings    options from a file
parser      help texts, and types of arguments
completion  shell completion
"""
