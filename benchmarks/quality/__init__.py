"""Parts of ``python -m benchmarks.search_quality``: signals, methods, the hand-over, statistics, the report."""
