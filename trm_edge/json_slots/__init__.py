"""JSON behind a language model: the text of a draft, and (in this package's later parts) the slots of a tool call."""
