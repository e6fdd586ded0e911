"""`make manifests`: is everything in manifests/ what Kubernetes, Docker and Prometheus would take?

    check.py [--crds FOLDER]

Every kustomization is built and each object held strictly against the schemas of the oldest and the newest supported
Kubernetes; custom resources against schemas.yaml, and with --crds also against published definitions in that folder.
Then what the objects say about each other, the rules for pods, variables and ports, alerts, the dashboard, Dockerfiles and
systemd units. All that is wrong is told at once. What the programs themselves have to say (settings, ports, probes, images)
is compared in broker/testkit/tests/manifests/.
"""
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import yaml
from jsonschema.validators import Draft202012Validator
from referencing import Registry, Resource

import kubernetes_validate
from rules import check_objects
from settings import check_settings
from render import MANIFESTS, TOOLS, Refused, build, documents

OLDEST, NEWEST = '1.31.0', '1.37.0'
SCHEMAS = os.path.join(os.path.dirname(kubernetes_validate.__file__), 'kubernetes-json-schema')
REPOSITORY = os.path.dirname(MANIFESTS)


# ---- schemas -------------------------------------------------------------------------------------------

class Kubernetes:
    """The schemas of one version of Kubernetes, and ours for custom resources."""

    def __init__(self, version, custom):
        self.version = version
        self.folder = os.path.join(SCHEMAS, f'v{version}-local-strict')
        definitions = Resource.from_contents(self.load('_definitions.json'))
        self.registry = definitions @ Registry()
        self.custom = custom
        self.validators = {}

    def load(self, name):
        with open(os.path.join(self.folder, name), encoding='utf-8') as file:
            return json.load(file)

    def validator(self, api_version, kind):
        key = f'{api_version}/{kind}'
        if key not in self.validators:
            self.validators[key] = self.make_validator(api_version, kind, key)
        return self.validators[key]

    def make_validator(self, api_version, kind, key):
        if key in self.custom:
            schema = dict(resource_schema(self.custom[key]), **{'$id': f'https://kubernetes.io/api/{key}'})
            return Draft202012Validator(schema, registry=self.registry)
        group, _, version = api_version.rpartition('/')
        short = f'{group.split(".")[0]}-{version}' if group else version
        try:
            schema = self.load(f'{kind.lower()}-{short}.json')
        except FileNotFoundError:
            return None
        gvk = [(g['group'], g['version'], g['kind']) for g in schema.get('x-kubernetes-group-version-kind', [])]
        if gvk and (group, version, kind) not in gvk:
            return None
        return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ self.registry)

    def errors(self, document):
        api_version, kind = document.get('apiVersion', ''), document.get('kind', '')
        validator = self.validator(api_version, kind)
        if validator is None:
            return [f'Kubernetes {self.version} has no {api_version}/{kind}, and it is none of schemas.yaml']
        return [describe(error) for error in deepest(validator.iter_errors(document))]


def deepest(errors):
    """Of alternatives (`oneOf`, …) the branch that says most about what is wrong."""
    for error in errors:
        if error.context:
            yield max(error.context, key=lambda inner: len(inner.absolute_path))
        else:
            yield error


def describe(error):
    path = ''.join(f'[{part}]' if isinstance(part, int) else f'.{part}' for part in error.absolute_path)
    message = error.message
    if error.validator == 'additionalProperties' and isinstance(error.instance, dict):
        known = error.schema.get('properties', {})
        unknown = [name for name in error.instance if name not in known]
        message = f'unknown field {", ".join(unknown)} (there are {", ".join(sorted(known)[:40])})'
    return f'{path.lstrip(".") or "object"}: {message}'


def resource_schema(spec):
    """A custom resource with this spec."""
    metadata = {'$ref': '/api/_definitions.json#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta'}
    text = {'type': 'string'}
    return closed({'required': ['apiVersion', 'kind', 'metadata', 'spec'], 'properties': {
        'apiVersion': text, 'kind': text, 'metadata': metadata, 'spec': spec}})


def closed(schema):
    """The same schema with every object closed that does not say what else it may have."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {}
    for key, value in schema.items():
        # The names below `properties` are names of fields, not of schema keywords.
        result[key] = {name: closed(field) for name, field in value.items()} if key == 'properties' else closed(value)
    if 'properties' in schema:
        result.setdefault('type', 'object')
        if not schema.get('x-kubernetes-preserve-unknown-fields'):
            result.setdefault('additionalProperties', False)
    return result


def published(folder):
    """The schemas of CustomResourceDefinitions."""
    found = {}
    for path in sorted(glob.glob(os.path.join(folder, '*.yaml'))):
        with open(path, encoding='utf-8') as file:
            for crd in yaml.safe_load_all(file):
                if not crd or crd.get('kind') != 'CustomResourceDefinition':
                    continue
                for version in crd['spec']['versions']:
                    schema = closed(version['schema']['openAPIV3Schema'])
                    schema['properties']['metadata'] = {'type': 'object'}
                    key = f'{crd["spec"]["group"]}/{version["name"]}/{crd["spec"]["names"]["kind"]}'
                    found[key] = Draft202012Validator(schema)
    return found


def check_schemas(builds, kubernetes, definitions, problems):
    for name, objects in builds.items():
        for document in objects:
            where = f'{name}: {label(document)}'
            for version in kubernetes:
                problems += [f'{where} ({version.version}): {error}' for error in version.errors(document)]
            key = f'{document.get("apiVersion")}/{document.get("kind")}'
            if definitions and key in kubernetes[0].custom:
                if key not in definitions:
                    problems.append(f'{where}: no definition of {key} among those given')
                else:
                    errors = deepest(definitions[key].iter_errors(document))
                    problems += [f'{where} (published definition): {describe(error)}' for error in errors]


def label(document):
    return f'{document.get("kind")}/{document.get("metadata", {}).get("name")}'


# ---- alerts and dashboard ------------------------------------------------------------------------------

def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, **options)


def check_alerts(problems):
    if not shutil.which('promtool'):
        problems.append('promtool is missing: `make deps` installs it (Debian package prometheus)')
        return
    folder = os.path.join(MANIFESTS, 'components', 'alerts')
    with open(os.path.join(folder, 'rules.yaml'), encoding='utf-8') as file:
        rules = yaml.safe_load(file)['spec']
    with open(os.path.join(MANIFESTS, 'components', 'grafana', 'celeriac.json'), encoding='utf-8') as file:
        dashboard = json.load(file)
    shown = [target['expr'] for panel in dashboard['panels'] for target in panel['targets']]
    # promtool knows whether an expression can be read; as rules, those of the dashboard are judged too.
    panels = {'groups': [{'name': 'dashboard', 'rules': [
        {'record': f'panel:{number}', 'expr': expr} for number, expr in enumerate(shown)]}]}
    with tempfile.TemporaryDirectory() as scratch:
        for name, contents in {'rules.yaml': rules, 'dashboard.yaml': panels}.items():
            with open(os.path.join(scratch, name), 'w', encoding='utf-8') as file:
                yaml.safe_dump(contents, file)
            done = run(['promtool', 'check', 'rules', os.path.join(scratch, name)])
            if done.returncode != 0:
                problems.append(f'{name}: promtool: {done.stdout}{done.stderr}')
        shutil.copy(os.path.join(folder, 'tests.yaml'), scratch)
        done = run(['promtool', 'test', 'rules', 'tests.yaml'], cwd=scratch)
        if done.returncode != 0:
            problems.append(f'components/alerts/tests.yaml: promtool: {done.stdout}{done.stderr}')
    tested = open(os.path.join(folder, 'tests.yaml'), encoding='utf-8').read()
    alerts = [rule for group in rules['groups'] for rule in group['rules']]
    for alert in alerts:
        if tested.count(f'alertname: {alert["alert"]}\n') < 2:
            problems.append(f'components/alerts/tests.yaml: {alert["alert"]} needs a case where it fires and one where not')
    check_metrics([alert['expr'] for alert in alerts] + shown, problems)


def check_metrics(expressions, problems):
    """Each metric of ours that is asked for must be written somewhere in the programs."""
    sources = ''
    for path in glob.glob(os.path.join(REPOSITORY, '*', 'src', '**', '*.rs'), recursive=True):
        sources += open(path, encoding='utf-8').read()
    names = {name for text in expressions for name in re.findall(r'\b(?:flower|producer_api|celery|http)_[a-z0-9_]+', text)}
    for name in sorted(names):
        if f'"{re.sub("_(count|sum|bucket)$", "", name)}"' not in sources:
            problems.append(f'{name} is asked for by an alert or a panel, and no program exports it')


# ---- Dockerfiles, compose, systemd ---------------------------------------------------------------------

def check_dockerfiles(problems):
    for path in sorted(glob.glob(os.path.join(MANIFESTS, '**', 'Dockerfile'), recursive=True)):
        name = os.path.relpath(path, REPOSITORY)
        done = run([os.path.join(TOOLS, 'hadolint'), '--no-color', '--failure-threshold', 'style', path])
        if done.returncode != 0:
            problems.append(f'{name}: hadolint: {done.stdout}{done.stderr}')


def check_units(problems):
    if not shutil.which('systemd-analyze'):
        problems.append('systemd-analyze is missing: `make deps` installs it (Debian package systemd)')
        return
    with tempfile.TemporaryDirectory() as scratch:
        paths = []
        for path in sorted(glob.glob(os.path.join(MANIFESTS, 'systemd', '*.service'))):
            with open(path, encoding='utf-8') as file:
                # The programs are not installed here; everything else is judged.
                text = re.sub(r'^ExecStart=/usr/local/bin/\S+', 'ExecStart=/bin/true', file.read(), flags=re.M)
            paths.append(os.path.join(scratch, os.path.basename(path)))
            with open(paths[-1], 'w', encoding='utf-8') as file:
                file.write(text)
        done = run(['systemd-analyze', 'verify', *paths])
        said = [line for line in (done.stdout + done.stderr).splitlines() if '.service' in line and scratch in line
                or any(line.startswith(os.path.basename(path)) for path in paths)]
        problems += [f'systemd: {line.replace(scratch + "/", "")}' for line in said]
        if done.returncode != 0 and not said:
            problems.append(f'systemd-analyze verify: {done.stdout}{done.stderr}')


def check_yaml(problems):
    """What kustomize does not read, or reads more leniently."""
    for path in sorted(glob.glob(os.path.join(MANIFESTS, '**', '*.yaml'), recursive=True)):
        with open(path, encoding='utf-8') as file:
            name = os.path.relpath(path, REPOSITORY)
            try:
                removals = [document for document in documents(file.read(), name) if '$patch' in document]
            except Refused as refused:
                problems.append(str(refused))
                continue
            if len(removals) > 1:
                problems.append(f'{name}: kubectl up to 1.32 goes down with several `$patch` in one file: one patch for each')


# ---- all -----------------------------------------------------------------------------------------------

def kustomizations():
    overlays = sorted(glob.glob(os.path.join(MANIFESTS, 'overlays', '*', 'kustomization.yaml')))
    return ['base'] + [os.path.relpath(os.path.dirname(path), MANIFESTS) for path in overlays]


def check_components(problems):
    used = set()
    for path in glob.glob(os.path.join(MANIFESTS, 'overlays', '*', 'kustomization.yaml')):
        with open(path, encoding='utf-8') as file:
            used |= {os.path.basename(name) for name in yaml.safe_load(file).get('components', [])}
    for path in glob.glob(os.path.join(MANIFESTS, 'components', '*')):
        if os.path.basename(path) not in used:
            problems.append(f'components/{os.path.basename(path)} is used by no overlay, so nothing checks it')


def custom_schemas():
    with open(os.path.join(MANIFESTS, 'check', 'schemas.yaml'), encoding='utf-8') as file:
        return yaml.safe_load(file)


def main(arguments):
    problems = []
    definitions = published(arguments[1]) if arguments[:1] == ['--crds'] else {}
    builds = {}
    for name in kustomizations():
        try:
            builds[name] = build(name)
        except Refused as refused:
            problems.append(str(refused))
    kubernetes = [Kubernetes(version, custom_schemas()) for version in (OLDEST, NEWEST)]
    check_schemas(builds, kubernetes, definitions, problems)
    for name, objects in builds.items():
        check_objects(name, objects, problems)
        check_settings(name, objects, problems)
    check_components(problems)
    check_yaml(problems)
    check_alerts(problems)
    check_dockerfiles(problems)
    check_units(problems)
    count = sum(len(objects) for objects in builds.values())
    if problems:
        print('\n'.join(f'manifests: {problem}' for problem in dict.fromkeys(problems)), file=sys.stderr)
        return 1
    print(f'manifests: {count} objects of {len(builds)} kustomizations, alerts, dashboard, Dockerfile and systemd units are right')
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
