"""The disk: whole writes, hashes, free space, memory, a Drive that comes and goes."""
