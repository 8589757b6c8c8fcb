"""The viewer: three linked planes and a 3D surface of a case, with truth, predictions and errors, in any browser."""
