"""What attempts print and tell, read where it lies: by range, by search, and as it grows."""
