"""Training and scoring: one optimiser loop, and what is put around it."""
