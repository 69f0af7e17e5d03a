"""Fault injection: real workers, a real queue and a real Postgres, and everything that can go wrong between them."""
