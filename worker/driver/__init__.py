"""What NVIDIA's driver tells of this machine's GPUs."""
