"""The functions of ``import fewbit``: what the commands do, for Python.

These modules import nothing heavy before a function needs it: no Amaranth, no cocotb, no numpy. The
work is done by the modules that the commands use as well. Packages that add designs or number
systems are loaded by the first function that is called, as the command loads them.
"""
