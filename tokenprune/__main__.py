"""The command `tokenprune`, also `python -m tokenprune`.

Not part of the library, which never imports the evals: it starts their commands.
"""

# PYTHON_ARGCOMPLETE_OK

from tokenprune.evals.cli import main

if __name__ == "__main__":
    main()
