"""OpenAI's Responses: items in, items and a stream of named events out; nothing is stored."""
