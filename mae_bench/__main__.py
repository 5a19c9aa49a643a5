"""`python -m mae_bench`, for launchers that want a module."""

from mae_bench.cli import main

main()
