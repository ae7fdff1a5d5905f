"""Search laws that several methods must share, so that none is searched more widely than another."""

from fipbench.methods import LogUniform

# Of every continual method; the default beside it is 0.003.
LEARNING_RATE = LogUniform(1e-4, 0.3)

# What weighs a memory of past examples against the new ones, on a loss of the same size as theirs.
STRENGTH = LogUniform(0.03, 30.0)
