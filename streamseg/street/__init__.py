"""The parts of `streamseg.synthetic`: plan, light, ground, fronts, trees, and everything that moves. Passive."""
