"""How a training run starts, continues and is stored."""
