"""Frames that stay on an NVIDIA GPU, and what of one a machine has. Who imports its modules loads torch or Triton."""
