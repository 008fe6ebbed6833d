"""Programs that measure and print tables; `python -m benchmarks.run --help` lists them."""
