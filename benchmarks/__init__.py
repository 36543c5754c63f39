"""Claims about speed, memory and search quality: ``python -m benchmarks.NAME`` prints one JSON object last."""
