"""What several methods share: wrapping with peft, adapter modules, virtual tokens, turns of the engine.

No method is defined here.
"""
