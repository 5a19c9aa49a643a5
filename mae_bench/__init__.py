"""mae-bench: which pre-training should a medical image model start from, and how sure are we?"""

from mae_bench.hookspecs import hookimpl

__version__ = "0.1.0"
__all__ = ["__version__", "hookimpl"]
