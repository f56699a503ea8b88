"""Peak memory of a training step: counted (counter), simulated (simulate, search) and measured (measured)."""
