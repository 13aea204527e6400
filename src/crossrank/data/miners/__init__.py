"""Who finds candidates for a question: one miner, one file."""
