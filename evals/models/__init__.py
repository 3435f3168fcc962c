"""Loading models and preparing their prompts."""
