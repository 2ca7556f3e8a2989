/**
 * Discovery in Kubernetes: a real API server (built by `interop/kubernetes/build-apiserver.sh`, named by WARMPATH_KUBE_APISERVER),
 * real Dynamo workers and client, our router. Pods are only spoken of: nothing runs in containers.
 */
import assert from 'node:assert/strict'
import { RealKube, kubeApiServer } from '../../test/kube-server.ts'
import { generateRequest, type Deployment } from '../deployment.ts'
import { routerEndpoint, workerOf, type OverlapAnswer, type Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

const labels = { 'nvidia.com/dynamo-discovery-backend': 'kubernetes', 'nvidia.com/dynamo-discovery-enabled': 'true' }
const slices = '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices'

async function ready(kube: RealKube, pod: string, isReady = true): Promise<void> {
  const slice = {
    apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice', addressType: 'IPv4', metadata: { name: `slice-${pod}`, namespace: 'default', labels },
    endpoints: [{ addresses: ['10.1.2.3'], conditions: { ready: isReady }, targetRef: { kind: 'Pod', name: pod, namespace: 'default', uid: `uid-${pod}` } }],
  }
  await kube.put(slices, slice)
}

async function overKubernetes(deployment: Deployment): Promise<void> {
  if (kubeApiServer === '') throw new Error('WARMPATH_KUBE_APISERVER names no API server; build one with interop/kubernetes/build-apiserver.sh')
  const kube = await RealKube.start()
  try {
    const pod = (name: string): NodeJS.ProcessEnv => ({ ...kube.env, DYN_DISCOVERY_BACKEND: 'kubernetes', POD_NAME: name, POD_UID: `uid-${name}`, POD_NAMESPACE: 'default' })
    for (const name of ['worker-0', 'worker-1', 'router-0', 'client-0']) await ready(kube, name)
    deployment.mocker('worker-0', ['--num-workers', 1], pod('worker-0'))
    deployment.mocker('worker-1', ['--num-workers', 1], pod('worker-1'))
    const router = deployment.warmpath('router', ['router', '--endpoint', 'dynamo.backend.generate', '--router-block-size', '16'], pod('router-0'))
    const driver = await deployment.driver(pod('client-0'))
    const prompt = Array.from({ length: 64 }, (_, index) => 100 + index)
    const overlap = async (): Promise<OverlapAnswer | undefined> => (await driver.call(routerEndpoint.overlapScores, { token_ids: prompt })).outputs[0] as OverlapAnswer | undefined
    await until('the router knows both workers', async () => (await overlap())?.workers.length === 2, 90_000)
    const first = await driver.call(routerEndpoint.generate, generateRequest(prompt))
    assert.equal(first.error, null)
    await until('the index follows', async () => (await overlap())?.workers.some((row) => row.device_blocks === 4) === true)
    assert.equal(workerOf((await driver.call(routerEndpoint.generate, generateRequest(prompt))).outputs), workerOf(first.outputs))
    await ready(kube, 'worker-1', false)
    await until('a pod that is not ready does not count', async () => (await overlap())?.workers.length === 1)
    await ready(kube, 'worker-1')
    await until('it counts again', async () => (await overlap())?.workers.length === 2)
    const resources = '/apis/nvidia.com/v1alpha1/namespaces/default/dynamoworkermetadatas'
    assert.ok((await kube.names(resources)).includes('router-0'))
    assert.equal(await deployment.stop(router), 0)
    assert.ok(!(await kube.names(resources)).includes('router-0'), 'the resource went with the router')
  } finally {
    await kube.close()
  }
}

export const kubernetesScenarios: readonly Scenario[] = [{ name: 'kubernetes', timeoutSeconds: 240, onDemand: true, run: overKubernetes }]
