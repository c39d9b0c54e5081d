"""`streamseg engine import`: other people's networks (ONNX files, PyTorch checkpoints) become engine bundles."""
