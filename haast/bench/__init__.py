"""How fast is it? One timer, ceilings measured in the same run, and what floors they make."""
