"""Measurements of pybuild beside other builders; not installed. Run as `python -m bench.compare` and the like."""
