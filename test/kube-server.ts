/** A real Kubernetes API server, with an etcd of its own, for tests that run where its program is. */
import { spawn, type ChildProcess } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Agent, request } from 'undici'
import { EtcdServer, freePort } from './discovery-kit.ts'
import { writeKubeConfig, type KubeServer } from './kube-double.ts'
import { until } from './until.ts'

/** The program, or why there is none. */
export const kubeApiServer = process.env['WARMPATH_KUBE_APISERVER'] ?? ''

const definition = {
  apiVersion: 'apiextensions.k8s.io/v1', kind: 'CustomResourceDefinition', metadata: { name: 'dynamoworkermetadatas.nvidia.com' },
  spec: {
    group: 'nvidia.com', scope: 'Namespaced', names: { plural: 'dynamoworkermetadatas', singular: 'dynamoworkermetadata', kind: 'DynamoWorkerMetadata', listKind: 'DynamoWorkerMetadataList' },
    versions: [{ name: 'v1alpha1', served: true, storage: true, schema: { openAPIV3Schema: { type: 'object', properties: { spec: { type: 'object', properties: { data: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } } } } } } }],
  },
}

export class RealKube implements KubeServer {
  readonly env: Readonly<Record<string, string>>
  readonly url: string
  readonly #child: ChildProcess
  readonly #etcd: EtcdServer
  readonly #folder: string
  readonly #agent: Agent

  private constructor(parts: { env: Record<string, string>; url: string; child: ChildProcess; etcd: EtcdServer; folder: string; agent: Agent }) {
    this.env = parts.env
    this.url = parts.url
    this.#child = parts.child
    this.#etcd = parts.etcd
    this.#folder = parts.folder
    this.#agent = parts.agent
  }

  static async start(): Promise<RealKube> {
    const folder = await mkdtemp(join(tmpdir(), 'warmpath-kube-'))
    const etcd = await EtcdServer.start()
    const port = await freePort()
    const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    await writeFile(join(folder, 'sa.key'), privateKey.export({ type: 'pkcs1', format: 'pem' }))
    await writeFile(join(folder, 'sa.pub'), publicKey.export({ type: 'spki', format: 'pem' }))
    await writeFile(join(folder, 'tokens.csv'), 'secret,tester,1,"system:masters"\n')
    const child = spawn(kubeApiServer, [
      `--etcd-servers=${etcd.url}`, `--secure-port=${port}`, '--bind-address=127.0.0.1', `--cert-dir=${folder}`, '--authorization-mode=AlwaysAllow', `--token-auth-file=${join(folder, 'tokens.csv')}`,
      '--service-account-issuer=https://kubernetes.default.svc', `--service-account-key-file=${join(folder, 'sa.pub')}`, `--service-account-signing-key-file=${join(folder, 'sa.key')}`,
      '--service-cluster-ip-range=10.0.0.0/24', '--disable-admission-plugins=ServiceAccount', '--endpoint-reconciler-type=none', '--v=0',
    ], { stdio: 'ignore' })
    await until('the API server has a certificate', () => existsSync(join(folder, 'apiserver.crt')), 60_000)
    const url = `https://127.0.0.1:${port}`
    const agent = new Agent({ connect: { rejectUnauthorized: false } })
    await until('the API server is ready', async () => (await request(`${url}/readyz`, { dispatcher: agent, headers: { authorization: 'Bearer secret' } }).catch(() => null))?.statusCode === 200, 60_000)
    const env = { KUBECONFIG: await writeKubeConfig(folder, url, { ca: readFileSync(join(folder, 'apiserver.crt'), 'utf8'), token: 'secret' }) }
    const server = new RealKube({ env, url, child, etcd, folder, agent })
    await server.#apply('/apis/apiextensions.k8s.io/v1/customresourcedefinitions/dynamoworkermetadatas.nvidia.com', definition)
    await until('the definition is served', async () => (await server.#get('/apis/nvidia.com/v1alpha1/namespaces/default/dynamoworkermetadatas')).status === 200, 30_000)
    return server
  }

  async put(collection: string, object: { readonly metadata: { readonly name: string } }): Promise<void> {
    await this.#apply(`${collection}/${object.metadata.name}`, object)
  }

  async delete(collection: string, name: string): Promise<void> {
    await request(`${this.url}${collection}/${name}`, { method: 'DELETE', dispatcher: this.#agent, headers: { authorization: 'Bearer secret' } }).then(({ body }) => body.dump())
  }

  async names(collection: string): Promise<string[]> {
    const { items } = (await this.#get(collection)).json as { items: { metadata: { name: string } }[] }
    return items.map(({ metadata }) => metadata.name)
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.kill('SIGKILL')
    await ended
    await this.#agent.destroy()
    await this.#etcd.stop()
    await rm(this.#folder, { recursive: true, force: true })
  }

  async #get(path: string): Promise<{ readonly status: number; readonly json: unknown }> {
    const reply = await request(`${this.url}${path}`, { dispatcher: this.#agent, headers: { authorization: 'Bearer secret' } })
    const text = await reply.body.text()
    return { status: reply.statusCode, json: text.startsWith('{') ? JSON.parse(text) : null }
  }

  async #apply(path: string, object: unknown): Promise<void> {
    const reply = await request(`${this.url}${path}?fieldManager=test&force=true`, {
      method: 'PATCH', dispatcher: this.#agent, headers: { authorization: 'Bearer secret', 'content-type': 'application/apply-patch+yaml' }, body: JSON.stringify(object),
    })
    const text = await reply.body.text()
    if (reply.statusCode >= 300) throw new Error(`${path}: ${reply.statusCode} ${text}`)
  }
}
