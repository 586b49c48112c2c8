"""The rules of `pybuild check` that BuildKit has too, under its names. Imported only where a check is asked for."""
