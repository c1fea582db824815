"""Is this network a global minimum, how far from one is it at most, and which way is down?"""

__version__ = "0.1.0"
