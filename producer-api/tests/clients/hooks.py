"""What schemathesis does not know by itself: NDJSON, one JSON text a line, both ways."""
import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(ctx, value):
    return json.dumps(value).encode() + b"\n"


@schemathesis.deserializer("application/x-ndjson")
def last_line(ctx, response):
    return json.loads(response.content.splitlines()[-1])["summary"]
