"""Several processes that train one model: which one this is, DDP and FSDP2."""
