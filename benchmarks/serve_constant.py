"""The least that an answer can cost in uvicorn: no routing, no decoding, always the same bytes. serve.py starts it."""

BODY = b'{"prediction":68.17,"lower":59.26,"upper":76.65,"level":0.9,"abstain":false}'
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]}
REST = {"type": "http.response.body", "body": BODY}


async def app(scope, receive, send):
    """Read the body, answer."""
    while (await receive()).get("more_body"):
        pass
    await send(START)
    await send(REST)
