"""Version 2's scenes and questions, and the sources that they are drawn from."""
