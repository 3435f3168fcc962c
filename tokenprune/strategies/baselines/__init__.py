"""Strategies whose choice does not depend on what the image shows; every other strategy should beat them."""
