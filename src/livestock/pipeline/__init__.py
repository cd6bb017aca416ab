"""The job in stages, one file each: a stage reads from the store, writes to it, and is skipped when it is done."""
