"""Statistics over records: means over seeds, tests of differences, learning curves.

Reads no files but predictions; imports no torch.
"""
