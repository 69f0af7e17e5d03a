"""What an operator asks for by hand: check, send, migrate, load collections, probe."""
