"""`python -m tokenprune.evals` is `tokenprune eval`, for `accelerate launch -m`."""

import sys

from tokenprune.__main__ import main

if __name__ == "__main__":
    main(["eval", *sys.argv[1:]])
