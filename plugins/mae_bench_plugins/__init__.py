"""First-party plugins: found through entry points, with no privilege over anyone else's."""
