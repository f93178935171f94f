"""How many GPUs a load takes: a simulator over measured curves, behind `haast plan`."""
