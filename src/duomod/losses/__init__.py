"""Stage 5: losses, ramps and class weights as pure functions."""
