"""The HTTP edge: thin handlers between Ollama's wire and the scheduler and store."""
