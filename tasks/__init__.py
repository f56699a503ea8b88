"""What a task's data, prompts and scores are.

Never imports `benchmark`."""
