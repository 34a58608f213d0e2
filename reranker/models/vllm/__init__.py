"""Language models that vLLM serves: the client, the servers it asks, starting and checking one."""
