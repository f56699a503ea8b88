"""The commands of hift-bench, a file each.

What a command calls is imported inside it, so `--help` is fast."""
