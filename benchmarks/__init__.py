"""This package and its peers doing the same work in one run: ``python -m benchmarks``."""
