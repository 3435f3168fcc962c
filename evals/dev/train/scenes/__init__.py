"""Scenes and questions, and the things that they show."""
