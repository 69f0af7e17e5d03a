"""Requests → items: generators that run in warm child processes, and the consumer that drives them."""
