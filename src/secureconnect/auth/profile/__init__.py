"""What people say of themselves: their names and picture, what others may learn of them, their password."""
