"""Where weights come from, how prompts become token ids, and the model in this process."""
