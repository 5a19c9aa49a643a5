"""How sure we are: intervals, tests of methods on the same cases and seeds, ranks, and what more runs would show."""
