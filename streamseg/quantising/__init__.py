"""int8 for a bundle: model-int8.onnx, made from model.onnx and calibrated on pictures (`streamseg engine build`)."""
