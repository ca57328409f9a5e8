"""What is peculiar to one implementation of a protocol, and the migration runner."""
