"""A backend without dependencies: deterministic, slow or faulty on request.

It exists for tests of scheduling and faults, and as the worked example for plugin authors. Its
"model" is a hash: the next token depends on every token in the slot's cache, so a core that mixes
up slots, positions or cached prefixes gets other text than one that does not.
"""
