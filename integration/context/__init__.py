"""What a layer may know of its forward pass: masks, seed, shared inputs."""
