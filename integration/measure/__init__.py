"""What a model does, measured: captured activations, kept bytes, covered layers."""
