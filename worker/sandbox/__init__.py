"""Running a stranger's program, bounded and watched."""
