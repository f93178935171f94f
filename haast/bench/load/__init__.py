"""A load of requests on a server that speaks OpenAI's API, and what it makes of them."""
