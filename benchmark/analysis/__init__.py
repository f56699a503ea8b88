"""What records say together: means over seeds, tests of differences, learning curves.

Arithmetic: no files but predictions, no torch.
"""
