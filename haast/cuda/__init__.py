"""CUDA C++ kernels for Hopper: sources, their build into cubins, and the launcher."""
