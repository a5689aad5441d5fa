"""MONAI Label's side: it translates between the server and the engine and decides nothing else."""
