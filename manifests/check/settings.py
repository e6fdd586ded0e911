"""Variables and ports of our programs' containers, against docs/configuration.md, which is made from the programs' tables.

The tests (broker/testkit/tests/manifests/) ask the programs themselves; here a wrong name is told without building them.
"""
import os
import re

from render import MANIFESTS

DOCUMENT = os.path.join(os.path.dirname(MANIFESTS), 'docs', 'configuration.md')
# What programs read beside their tables.
OTHERS = {'SSL_CERT_FILE', 'RUST_LOG', 'TZ'}
SECTIONS = {
    'producer-api': ['clients', 'producer-api'],
    'celery-worker': ['clients', 'celery-worker', 'celery-beat'],
    'celery-beat': ['clients', 'celery-beat'],
    'flower-lite': ['clients', 'flower-lite'],
}


def known_variables():
    """The variables of each section of the document."""
    with open(DOCUMENT, encoding='utf-8') as file:
        text = file.read()
    found = {}
    for name, body in re.findall(r'<!-- begin (\S+) -->(.*?)<!-- end', text, flags=re.S):
        cells = [line.split(' | ') for line in body.splitlines() if line.startswith('| `')]
        found[name] = {variable for cell in cells for variable in re.findall(r'`([A-Z][A-Z0-9_]+)`', cell[2])}
    return found


def environment(container, objects):
    maps = {document['metadata']['name']: document.get('data', {}) for document in objects if document['kind'] == 'ConfigMap'}
    found = {}
    for source in container.get('envFrom', []):
        found.update(maps.get(source.get('configMapRef', {}).get('name'), {}))
    found.update({variable['name']: variable.get('value') for variable in container.get('env', [])})
    return found


def check_settings(name, objects, problems):
    known = known_variables()
    for document in objects:
        if document['kind'] not in ('Deployment', 'StatefulSet'):
            continue
        for container in document['spec']['template']['spec']['containers']:
            program = container['image'].rsplit('/', 1)[-1].split(':')[0]
            if program not in SECTIONS:
                continue
            variables = OTHERS.union(*(known[section] for section in SECTIONS[program]))
            env = environment(container, objects)
            where = f'{name}: {document["kind"]}/{document["metadata"]["name"]}'
            for variable in sorted(env):
                if variable not in variables:
                    problems.append(f'{where}: {program} has no setting with the variable {variable}')
            ports = {str(port['containerPort']) for port in container.get('ports', [])}
            told = {value for variable, value in env.items() if variable.endswith('_PORT')}
            if ports != told:
                problems.append(f'{where}: the container says the ports {sorted(ports)}, its variables {sorted(told)}')
