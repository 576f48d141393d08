"""Rules on disputes by training the questioned stretch again."""
