"""The layer engine, the same for every number system, and the layers made with it."""
