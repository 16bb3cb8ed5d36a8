"""A scripted OpenAI-compatible server for tests and rehearsals: known capacity, known troubles, exact bookkeeping.

`settings` says how it behaves, `fate` draws what befalls a request, `writing` writes replies, `slots` and `allowances`
hold it to a capacity, `counts` keeps the books, `chat` and `batching` answer, `http` speaks HTTP, `server` runs it.
"""

from llavakit.synthesis.endpoint.fake.server import FakeEndpoint, FakeServer
from llavakit.synthesis.endpoint.fake.settings import FakeSettings

__all__ = ["FakeEndpoint", "FakeServer", "FakeSettings"]
