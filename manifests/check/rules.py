"""What the objects of one kustomization must say about each other, and how pods must be held."""
import os

from render import MANIFESTS


def check_objects(name, objects, problems):
    say = lambda document, text: problems.append(f'{name}: {document["kind"]}/{document["metadata"]["name"]}: {text}')
    workloads = [document for document in objects if document['kind'] in ('Deployment', 'StatefulSet')]
    for workload in workloads:
        check_workload(workload, say)
    check_references(name, objects, workloads, say, problems)
    check_selectors(objects, workloads, say)


def containers(workload):
    return workload['spec']['template']['spec']['containers']


# ---- how pods are held ---------------------------------------------------------------------------------

def check_workload(workload, say):
    pod = workload['spec']['template']['spec']
    for field in ('automountServiceAccountToken', 'enableServiceLinks'):
        if pod.get(field) is not False:
            say(workload, f'{field} must be false')
    security = pod.get('securityContext', {})
    if security.get('runAsNonRoot') is not True or not security.get('runAsUser'):
        say(workload, 'securityContext: runAsNonRoot and runAsUser must be set')
    if security.get('seccompProfile', {}).get('type') != 'RuntimeDefault':
        say(workload, 'securityContext: seccompProfile must be RuntimeDefault')
    if 'terminationGracePeriodSeconds' not in pod:
        say(workload, 'terminationGracePeriodSeconds must be said')
    for volume in pod.get('volumes', []):
        if 'emptyDir' in volume and 'sizeLimit' not in (volume['emptyDir'] or {}):
            say(workload, f'volume {volume["name"]}: an emptyDir needs a sizeLimit')
    for container in pod['containers']:
        check_container(workload, container, say)


def check_container(workload, container, say):
    who = container['name']
    security = container.get('securityContext', {})
    if security.get('readOnlyRootFilesystem') is not True:
        say(workload, f'{who}: readOnlyRootFilesystem must be true')
    if security.get('allowPrivilegeEscalation') is not False:
        say(workload, f'{who}: allowPrivilegeEscalation must be false')
    if security.get('capabilities') != {'drop': ['ALL']}:
        say(workload, f'{who}: capabilities must be dropped, all of them')
    resources = container.get('resources', {})
    requests, limits = resources.get('requests', {}), resources.get('limits', {})
    if not {'cpu', 'memory'} <= requests.keys() or limits.get('memory') != requests.get('memory'):
        say(workload, f'{who}: requests for cpu and memory, and a limit of the same memory')
    for probe in ('startupProbe', 'readinessProbe', 'livenessProbe'):
        if probe not in container:
            say(workload, f'{who}: has no {probe}')
    names = {port.get('name') for port in container.get('ports', [])}
    for probe in ('startupProbe', 'readinessProbe', 'livenessProbe'):
        for how in ('httpGet', 'tcpSocket'):
            port = container.get(probe, {}).get(how, {}).get('port')
            if port is not None and port not in names:
                say(workload, f'{who}: {probe} asks port {port}, which is no name of its ports')


# ---- what objects say about each other -----------------------------------------------------------------

def external_secrets(name):
    """The secrets that an overlay does not make itself: `name key` lines of its secrets.txt."""
    path = os.path.join(MANIFESTS, name, 'secrets.txt')
    if not os.path.exists(path):
        return set()
    with open(path, encoding='utf-8') as file:
        lines = [line.split('#')[0].split() for line in file]
    return {tuple(line) for line in lines if line}


def references(document, objects):
    """(kind, name, key or None) of each ConfigMap and Secret that a document needs."""
    if isinstance(document, list):
        for item in document:
            yield from references(item, objects)
        return
    if not isinstance(document, dict):
        return
    for field, value in document.items():
        if field in ('configMapKeyRef', 'secretKeyRef', 'credentials') and isinstance(value, dict):
            yield 'ConfigMap' if field == 'configMapKeyRef' else 'Secret', value['name'], value['key']
        elif field in ('configMapRef', 'secretRef'):
            yield 'ConfigMap' if field == 'configMapRef' else 'Secret', value['name'], None
        elif field == 'secretTargetRef':
            yield from (('Secret', item['name'], item['key']) for item in value)
        elif field == 'secretName' and isinstance(value, str):
            # A secret of a volume, where `items` says which keys.
            keys = [item['key'] for item in document.get('items', [])] or [None]
            yield from (('Secret', value, key) for key in keys)
        elif field == 'configMap' and isinstance(value, dict):
            keys = [item['key'] for item in value.get('items', [])] or [None]
            yield from (('ConfigMap', value['name'], key) for key in keys)
        elif field == 'ca' and isinstance(value, dict) and 'secret' in value:
            yield 'Secret', value['secret']['name'], value['secret']['key']
        else:
            yield from references(value, objects)


def check_references(name, objects, workloads, say, problems):
    made = {(document['kind'], document['metadata']['name']):
            {**document.get('data', {}), **document.get('stringData', {}), **document.get('binaryData', {})}
            for document in objects if document['kind'] in ('ConfigMap', 'Secret')}
    external, used = external_secrets(name), set()
    for document in objects:
        for kind, wanted, key in references(document.get('spec', {}), objects):
            data = made.get((kind, wanted))
            if data is not None:
                if key is not None and key not in data:
                    say(document, f'{kind} {wanted} has no key {key}')
            elif kind == 'Secret':
                keys = {item for item in external if item[0] == wanted and key in (None, item[1])}
                used |= keys
                # The base is not applied as it is; its overlays bring the secrets.
                if not keys and name != 'base':
                    say(document, f'Secret {wanted} (key {key}) is neither made nor listed in {name}/secrets.txt')
            else:
                say(document, f'there is no ConfigMap {wanted}')
    for secret, key in sorted(external - used):
        problems.append(f'{name}/secrets.txt: nothing uses the key {key} of {secret}')
    claims = {document['metadata']['name']: document for document in objects if document['kind'] == 'PersistentVolumeClaim'}
    for workload in workloads:
        for volume in workload['spec']['template']['spec'].get('volumes', []):
            if 'persistentVolumeClaim' in volume:
                check_claim(workload, volume['persistentVolumeClaim']['claimName'], claims, say)
        for container in containers(workload):
            names = {volume['name'] for volume in workload['spec']['template']['spec'].get('volumes', [])}
            names |= {claim['metadata']['name'] for claim in workload['spec'].get('volumeClaimTemplates', [])}
            for mount in container.get('volumeMounts', []):
                if mount['name'] not in names:
                    say(workload, f'{container["name"]}: there is no volume {mount["name"]}')


def check_claim(workload, wanted, claims, say):
    if wanted not in claims:
        say(workload, f'there is no PersistentVolumeClaim {wanted}')
    elif claims[wanted]['spec']['accessModes'] == ['ReadWriteOnce']:
        # A second pod, be it only during a rollout, waits for the volume for ever, or writes to what the first writes to.
        if workload['spec'].get('replicas', 1) != 1 or workload['spec'].get('strategy', {}).get('type') != 'Recreate':
            say(workload, f'PersistentVolumeClaim {wanted} is ReadWriteOnce: one replica, and strategy Recreate')


def matches(selector, labels):
    wanted = selector.get('matchLabels', {}).items() <= labels.items()
    for expression in selector.get('matchExpressions', []):
        wanted = wanted and labels.get(expression['key']) in expression['values']
    return wanted


def check_selectors(objects, workloads, say):
    pods = {workload['metadata']['name']: workload['spec']['template'] for workload in workloads}
    labels = [pod['metadata']['labels'] for pod in pods.values()]
    # The operator's pods carry this label too; their template is not ours.
    labels += [{'app.kubernetes.io/name': document['metadata']['name']} for document in objects
               if document['kind'] == 'RabbitmqCluster']
    operators = {document['metadata']['name'] for document in objects if document['kind'] == 'RabbitmqCluster'}
    services = {document['metadata']['name']: document for document in objects if document['kind'] == 'Service'}
    for document in objects:
        spec = document.get('spec', {})
        if document['kind'] == 'Service':
            chosen = [pod for pod in pods.values() if spec['selector'].items() <= pod['metadata']['labels'].items()]
            if not chosen:
                say(document, 'selects no pod')
            for pod in chosen:
                names = {port['name'] for container in pod['spec']['containers'] for port in container.get('ports', [])}
                for port in spec['ports']:
                    if port['targetPort'] not in names:
                        say(document, f'targetPort {port["targetPort"]} is no port of its pods')
        elif document['kind'] in ('Deployment', 'StatefulSet'):
            if not matches(spec['selector'], spec['template']['metadata']['labels']):
                say(document, 'does not select its own pods')
            if document['kind'] == 'StatefulSet' and spec['serviceName'] not in services:
                say(document, f'there is no service {spec["serviceName"]}')
        elif document['kind'] in ('PodDisruptionBudget', 'NetworkPolicy'):
            selector = spec.get('selector', spec.get('podSelector'))
            if selector and not any(matches(selector, each) for each in labels):
                say(document, 'selects no pod')
        elif document['kind'] == 'ServiceMonitor':
            wanted = spec['selector']['matchLabels']['app.kubernetes.io/name']
            ports = {port['name'] for port in services.get(wanted, {}).get('spec', {}).get('ports', [])}
            for endpoint in spec['endpoints']:
                if wanted not in operators and endpoint['port'] not in ports:
                    say(document, f'service {wanted} has no port {endpoint["port"]}')
        elif document['kind'] == 'ScaledObject':
            target = [workload for workload in workloads if workload['metadata']['name'] == spec['scaleTargetRef']['name']]
            if not target:
                say(document, 'scales something that is not there')
            elif 'replicas' in target[0]['spec']:
                say(document, 'its Deployment must not say `replicas`: two would decide')
