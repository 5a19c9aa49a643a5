"""Where the sites of a simulation are: in this process one after the other, or in worker processes."""
