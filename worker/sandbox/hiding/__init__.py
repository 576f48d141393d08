"""What a recipe may see of where and when it runs."""
