"""The command `tokenprune`, also `python -m tokenprune`.

It runs the commands of the evals, which the library itself never imports.
"""

# PYTHON_ARGCOMPLETE_OK

from tokenprune.evals.cli import main

if __name__ == "__main__":
    main()
