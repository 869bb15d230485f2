"""The documentation of the service as one page of plain HTML, made from its OpenAPI description.

Swagger UI is a megabyte of script that FastAPI loads from a CDN; this page loads nothing, runs nothing and lets any
browser try every endpoint. Tools read /openapi.json.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { margin-bottom: 0; }
section { border-top: 1px solid #ccc; margin-top: 2rem; }
code, pre { font: 14px/1.5 ui-monospace, monospace; background: #f3f3f3; }
code { padding: 0 .2em; }
pre { padding: .7em 1em; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .2em 1em .2em 0; border-bottom: 1px solid #eee; }
.method { color: #fff; background: #2b6b3f; border-radius: 3px; padding: .1em .5em; }
@media (prefers-color-scheme: dark) {
  body { background: #1b1b1b; color: #ddd; } code, pre { background: #2a2a2a; } a { color: #8bc; }
  th, td { border-color: #333; } section { border-color: #444; }
}
"""
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_DIGEST}'; img-src data:; form-action 'self';"
    " frame-ancestors 'none'; base-uri 'none'"
}

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{{ info.title }}: the service</title>
<style>{{ style|safe }}</style>
</head>
<body>
<h1>{{ info.title }}</h1>
<p>{{ info.summary }} The same for programs: <a href="openapi.json">openapi.json</a> (OpenAPI {{ openapi }}).
Errors answer <code>{"status": "error", "message": "a sentence"}</code>.</p>
{% for path, methods in paths.items() %}{% for method, operation in methods.items() %}
<section>
<h2><span class="method">{{ method|upper }}</span> <code>{{ path }}</code></h2>
<p>{{ operation.summary }}.</p>
{% if operation.requestBody %}
<pre>curl -F 'audio=@song.mp3' {{ base }}{{ path }}</pre>
<form action="{{ path[1:] or './' }}" method="post" enctype="multipart/form-data">
<input type="file" name="audio" aria-label="song for {{ path }}" required> <button>Try it</button>
</form>
{% endif %}
{% if operation.parameters %}
<h3>Parameters</h3>
<table>
{% for parameter in operation.parameters %}
<tr><td><code>{{ parameter.name }}</code></td><td>{{ parameter.description }}</td></tr>
{% endfor %}
</table>
{% endif %}
<h3>Answers</h3>
<table>
{% for status, response in operation.responses.items() %}
<tr><td>{{ status }}</td><td>{{ response.description }}
{% if status == "200" %}<pre>{{ example(response) }}</pre>{% endif %}</td></tr>
{% endfor %}
</table>
</section>
{% endfor %}{% endfor %}
</body>
</html>
"""


def page(description: dict[str, Any], base: str) -> str:
    """Return the page for an OpenAPI description of a service at an address, as `http://localhost:5000`."""
    schemas = description["components"]["schemas"]

    def example(response: dict[str, Any]) -> str:
        return json.dumps(_shape(response["content"]["application/json"]["schema"], schemas), indent=2)

    return str(_template().render(**description, base=base, style=STYLE, example=example))


@functools.cache
def _template() -> Any:
    import jinja2

    return jinja2.Environment(autoescape=True, undefined=jinja2.ChainableUndefined, trim_blocks=True).from_string(
        TEMPLATE
    )


def _shape(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """Return a value that looks like what a schema describes: the types stand for the values."""
    if "$ref" in schema:
        return _shape(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "anyOf" in schema:
        return " or ".join(str(_shape(choice, schemas)) for choice in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return schema.get("const") or " or ".join(schema["enum"])
    match schema.get("type"):
        case "object" if "properties" in schema:
            return {name: _shape(value, schemas) for name, value in schema["properties"].items()}
        case "object":
            return {"genre": _shape(schema["additionalProperties"], schemas)}
        case "array":
            return [_shape(schema["items"], schemas)]
        case kind:
            return kind
