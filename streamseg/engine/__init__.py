"""Engines: bundles on disk, the program graph, the backends that execute it."""
