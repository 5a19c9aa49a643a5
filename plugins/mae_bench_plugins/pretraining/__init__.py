"""First-party pretraining."""
