"""Many cells as one job: a grid file, what it asks for, what it would cost, and running what is not done yet."""
