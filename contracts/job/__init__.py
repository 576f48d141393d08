"""What a training job is: its JobSpec, the files around it, what a provider wants of one, and how one is sealed."""
