"""What a layer may know of its forward pass: masks, tokens, example ids, the seed, shared inputs."""
