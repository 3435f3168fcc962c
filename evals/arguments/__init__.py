"""How commands and demos parse their arguments, and which of them functions share.

fields      one definition for the arguments of a function and the options of its command
options     options that several of them share
settings    options read from a file
parser      help texts, and types of arguments
completion  shell completion
"""
