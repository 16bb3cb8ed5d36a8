"""Teachers behind HTTP: any server that speaks OpenAI's chat completions, and its Batch API.

`chat_format` writes and reads bodies, `http_trouble` says what a failed request means, `endpoint` sends.
`fake` is a scripted server for tests and rehearsals. Nothing here retries, waits for its turn, or reads what a teacher
wrote.
"""
