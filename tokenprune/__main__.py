"""The command `tokenprune`, also `python -m tokenprune`.

This starts the commands of the evals. The library itself never imports them.
"""

# PYTHON_ARGCOMPLETE_OK

from tokenprune.evals.cli import main

if __name__ == "__main__":
    main()
