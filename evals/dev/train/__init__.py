"""Training of the bundled model and drawing of the bundled scenes: `python -m tokenprune.evals.dev.train --help`."""
