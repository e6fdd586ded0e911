"""The check itself: what must be refused is refused, each with a message that names the place."""
import copy
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import check  # noqa: E402
import render  # noqa: E402
import rules  # noqa: E402
import settings  # noqa: E402


class Refusals(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.objects = render.build('overlays/prod')
        cls.kubernetes = check.Kubernetes(check.NEWEST, check.custom_schemas())

    def take(self, kind, name):
        return copy.deepcopy(next(document for document in self.objects
                                  if document['kind'] == kind and document['metadata']['name'] == name))

    def refuses(self, document, *words):
        errors = self.kubernetes.errors(document)
        for word in words:
            self.assertTrue(any(word in error for error in errors), f'{word} is not in {errors}')

    def test_what_is_right_passes(self):
        for document in self.objects:
            self.assertEqual(self.kubernetes.errors(document), [])

    def test_a_misspelt_field(self):
        worker = self.take('Deployment', 'celery-worker')
        container = worker['spec']['template']['spec']['containers'][0]
        container['readinesProbe'] = container.pop('readinessProbe')
        self.refuses(worker, 'spec.template.spec.containers[0]', 'unknown field readinesProbe')

    def test_a_wrong_type(self):
        worker = self.take('Deployment', 'celery-worker')
        worker['spec']['replicas'] = 'five'
        self.refuses(worker, 'spec.replicas')

    def test_the_api_versions_of_2016_and_unknown_kinds(self):
        worker = self.take('Deployment', 'celery-worker')
        worker['apiVersion'] = 'extensions/v1beta1'
        self.refuses(worker, 'has no extensions/v1beta1/Deployment')
        worker['apiVersion'], worker['kind'] = 'apps/v1', 'Deploiment'
        self.refuses(worker, 'has no apps/v1/Deploiment')
        # A group of another domain, with the same first word and version as one that exists.
        worker['apiVersion'], worker['kind'] = 'apps.example.com/v1', 'Deployment'
        self.refuses(worker, 'has no apps.example.com/v1/Deployment')

    def test_custom_resources(self):
        scaled = self.take('ScaledObject', 'celery-worker')
        scaled['spec']['triggers'][0]['metadata']['mode'] = 'QueueLenght'
        self.refuses(scaled, 'spec.triggers[0].metadata.mode')
        cluster = self.take('RabbitmqCluster', 'rabbitmq')
        cluster['spec']['tls']['disableNonTlsListeners'] = True
        self.refuses(cluster, 'spec.tls', 'unknown field disableNonTlsListeners')
        cluster['apiVersion'] = 'rabbitmq.com/v1'
        self.refuses(cluster, 'has no rabbitmq.com/v1/RabbitmqCluster')

    def rules_say(self, change, word):
        objects = {(document['kind'], document['metadata']['name']): document for document in copy.deepcopy(self.objects)}
        change(objects)
        problems = []
        rules.check_objects('overlays/prod', list(objects.values()), problems)
        self.assertTrue(any(word in problem for problem in problems), f'{word} is not in {problems}')

    def test_a_key_that_stands_twice(self):
        with self.assertRaisesRegex(render.Refused, 'line 2: a stands twice'):
            render.documents('a: 1\na: 2\n', 'x')

    def test_dangling_references(self):
        worker = ('Deployment', 'celery-worker')
        pod = lambda objects: objects[worker]['spec']['template']['spec']
        self.rules_say(lambda o: pod(o)['volumes'][0]['secret'].update(secretName='brocker'), 'Secret brocker')
        self.rules_say(lambda o: pod(o)['containers'][0]['volumeMounts'][0].update(name='nowhere'), 'no volume nowhere')
        self.rules_say(lambda o: pod(o)['containers'][0]['envFrom'][0]['configMapRef'].update(name='x'), 'no ConfigMap x')
        self.rules_say(lambda o: o[('Service', 'producer-api')]['spec']['ports'][0].update(targetPort='web'), 'targetPort web')
        self.rules_say(lambda o: o[('Service', 'redis')]['spec'].update(selector={'app': 'x'}), 'selects no pod')
        self.rules_say(lambda o: o[worker]['spec'].update(replicas=5), 'two would decide')

    def settings_say(self, change, word):
        objects = {(document['kind'], document['metadata']['name']): document for document in copy.deepcopy(self.objects)}
        change(objects)
        problems = []
        settings.check_settings('overlays/prod', list(objects.values()), problems)
        self.assertTrue(any(word in problem for problem in problems), f'{word} is not in {problems}')

    def test_variables_and_ports_of_the_programs(self):
        api = lambda objects: objects[('Deployment', 'producer-api')]['spec']['template']['spec']['containers'][0]
        self.settings_say(lambda o: api(o)['env'][0].update(name='PRODUCER_API_BINT'), 'no setting with the variable PRODUCER_API_BINT')
        self.settings_say(lambda o: api(o)['ports'][0].update(containerPort=8081), "the ports ['8081'], its variables ['8080']")
        maps = lambda o: next(document for (kind, name), document in o.items() if kind == 'ConfigMap' and name.startswith('celery-worker-'))
        self.settings_say(lambda o: maps(o)['data'].update(CELERY_WORKER_CONCURENCY='8'), 'variable CELERY_WORKER_CONCURENCY')
        problems = []
        settings.check_settings('overlays/prod', self.objects, problems)
        self.assertEqual(problems, [])

    def test_a_volume_of_one_pod(self):
        monitor = lambda objects: objects[('Deployment', 'flower-lite')]['spec']
        self.rules_say(lambda o: monitor(o).update(replicas=2), 'one replica, and strategy Recreate')
        self.rules_say(lambda o: monitor(o)['strategy'].update(type='RollingUpdate'), 'one replica, and strategy Recreate')
        self.rules_say(lambda o: o.pop(('PersistentVolumeClaim', 'flower-lite')), 'no PersistentVolumeClaim flower-lite')

    def test_pods_that_are_not_held(self):
        container = lambda o: o[('Deployment', 'producer-api')]['spec']['template']['spec']['containers'][0]
        self.rules_say(lambda o: container(o)['securityContext'].update(readOnlyRootFilesystem=False), 'readOnlyRootFilesystem')
        self.rules_say(lambda o: container(o).pop('livenessProbe'), 'has no livenessProbe')
        self.rules_say(lambda o: container(o)['livenessProbe']['httpGet'].update(port='admin'), 'asks port admin')
        self.rules_say(lambda o: container(o)['resources'].pop('limits'), 'limit of the same memory')


if __name__ == '__main__':
    unittest.main()
