"""What several test files need. Not collected."""
