"""Load models and prepare their prompts."""
