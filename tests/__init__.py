"""A package, so that tests/cuda is tests.cuda and does not hide NVIDIA's cuda."""
