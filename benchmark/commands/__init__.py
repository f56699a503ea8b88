"""The commands of hift-bench, a file each; what each calls is imported inside it, so `--help` is fast."""
