"""The update rules of strategies that have one of their own, as torch optimizers. They import torch."""
