"""Labels that are missing, labels by models, and labels that people mend."""
