"""GPU code, in Gluon where lanes must be placed by hand and in plain Triton elsewhere.

Imported only where Triton is there. Names in capitals are compile-time constants.
"""
