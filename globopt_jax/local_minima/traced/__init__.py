"""The parts of `tangent_value`: a program of a fixed number of steps for each of the three methods."""
