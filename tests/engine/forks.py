"""Processes for tests that need some of their own: forks of one server that has imported the libraries."""

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["benchmark.engine", "transformers.trainer", "lightning"])
