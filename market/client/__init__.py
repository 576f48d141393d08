"""The client's side: describing a job, submitting it, following it, getting its result. Needs only contracts."""
