"""What Kubernetes would be given: kustomize's output as JSON. Also reads any other YAML, strictly.

    render.py overlays/dev            the objects of a kustomization below manifests/, as a JSON list
    render.py compose/compose.yaml    the documents of a file, as a JSON list
"""
import json
import os
import subprocess
import sys

import yaml

MANIFESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOLS = os.path.dirname(sys.executable)


class Refused(Exception):
    """Something is wrong with a manifest; the text says what and where."""


class StrictLoader(getattr(yaml, 'CSafeLoader', yaml.SafeLoader)):
    """YAML in which no key of a mapping stands twice: the second would silently win."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise Refused(f'line {key.start_mark.line + 1}: {key.value} stands twice')
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# In YAML 1.1 a lone `=` is a value of its own kind; nobody means that.
StrictLoader.add_constructor('tag:yaml.org,2002:value', lambda loader, node: node.value)


def documents(text, name):
    try:
        return [document for document in yaml.load_all(text, StrictLoader) if document is not None]
    except (yaml.YAMLError, Refused) as error:
        raise Refused(f'{name}: {error}') from None


def build(name):
    """The objects of the kustomization in the folder `name` of manifests/."""
    kubectl = os.path.join(TOOLS, 'kubectl')
    done = subprocess.run([kubectl, 'kustomize', os.path.join(MANIFESTS, name)], capture_output=True, text=True)
    if done.returncode != 0:
        raise Refused(f'{name}: kustomize: {done.stderr.strip()}')
    if done.stderr.strip():
        raise Refused(f'{name}: kustomize warns: {done.stderr.strip()}')
    return documents(done.stdout, name)


def read(name):
    path = os.path.join(MANIFESTS, name)
    if os.path.isdir(path):
        return build(name)
    with open(path, encoding='utf-8') as file:
        return documents(file.read(), name)


if __name__ == '__main__':
    try:
        json.dump([document for name in sys.argv[1:] for document in read(name)], sys.stdout)
    except Refused as refused:
        sys.exit(str(refused))
