"""One module per kind of experiment: `make(config)` binds a config to library functions."""
