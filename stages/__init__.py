"""The stages of the genre pipeline and the commands people run, one module each."""

import os

# Before NumPy is imported. Matrices are small: more threads of OpenBLAS would wait for each other, for thrice the CPU
# time, and the last digits would depend on their number.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
