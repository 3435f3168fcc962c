"""All accuracy of the bundled model by one command, and what it says about the published directions."""
