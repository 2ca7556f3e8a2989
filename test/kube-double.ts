/**
 * A stand-in for a Kubernetes API server: collections with versions, lists in pages, watches with bookmarks, server-side apply of
 * whole objects. The same tests run against a real one where WARMPATH_KUBE_APISERVER names its program.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseJson, stringifyJson } from '../src/dynamo/wire/json.ts'

type Object = { [key: string]: unknown; metadata: { name: string; resourceVersion?: string; labels?: Record<string, string>; [key: string]: unknown } }

interface Change {
  readonly version: number
  readonly collection: string
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'
  readonly object: Object
}

export interface KubeServer {
  /** For the settings of a client. */
  readonly env: Readonly<Record<string, string>>
  /** Creates or replaces an object at `collection`/`name`. */
  put(collection: string, object: Object): Promise<void>
  delete(collection: string, name: string): Promise<void>
  names(collection: string): Promise<string[]>
  /** Ends every open watch, as a server does that restarts. */
  endWatches?(): void
  /** Forgets the history: watches from before answer 410. */
  compact?(): void
  close(): Promise<void>
}

export class KubeDouble implements KubeServer {
  readonly #server: Server
  readonly #objects = new Map<string, Map<string, Object>>()
  #history: Change[] = []
  #compacted = 0
  #version = 100
  readonly #watches = new Set<{ readonly collection: string; readonly selector: string | null; readonly response: ServerResponse }>()
  readonly calls: string[] = []
  #folder = ''
  env: Readonly<Record<string, string>> = {}

  private constructor() {
    this.#server = createServer((request, response) => void this.#answer(request, response))
  }

  static async start(): Promise<KubeDouble> {
    const double = new KubeDouble()
    double.#folder = await mkdtemp(join(tmpdir(), 'warmpath-kube-'))
    await new Promise<void>((resolve) => double.#server.listen(0, '127.0.0.1', resolve))
    double.env = { KUBECONFIG: await writeKubeConfig(double.#folder, `http://127.0.0.1:${(double.#server.address() as AddressInfo).port}`) }
    return double
  }

  async put(collection: string, object: Object): Promise<void> {
    this.#store(collection, object)
  }

  async delete(collection: string, name: string): Promise<void> {
    const objects = this.#collection(collection)
    const object = objects.get(name)
    if (object === undefined) return
    objects.delete(name)
    this.#note(collection, 'DELETED', object)
  }

  async names(collection: string): Promise<string[]> {
    return [...this.#collection(collection).keys()]
  }

  endWatches(): void {
    for (const { response } of this.#watches) response.destroy()
    this.#watches.clear()
  }

  compact(): void {
    this.#compacted = this.#version
    this.#history = []
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
    await rm(this.#folder, { recursive: true, force: true })
  }

  #collection(path: string): Map<string, Object> {
    let objects = this.#objects.get(path)
    if (objects === undefined) this.#objects.set(path, (objects = new Map()))
    return objects
  }

  #store(collection: string, object: Object): Object {
    const objects = this.#collection(collection)
    const type = objects.has(object.metadata.name) ? 'MODIFIED' : 'ADDED'
    objects.set(object.metadata.name, object)
    return this.#note(collection, type, object)
  }

  #note(collection: string, type: Change['type'], object: Object): Object {
    this.#version += 1
    object.metadata.resourceVersion = String(this.#version)
    const change: Change = { version: this.#version, collection, type, object: structuredClone(object) }
    this.#history.push(change)
    for (const watch of this.#watches) if (watch.collection === collection && selected(change.object, watch.selector)) watch.response.write(`${stringifyJson({ type, object: change.object })}\n`)
    return object
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://double')
    const { pathname, searchParams } = url
    this.calls.push(`${request.method ?? ''} ${pathname}${searchParams.has('watch') ? ' watch' : ''}`)
    const send = (status: number, body: unknown): void => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(stringifyJson(body))
    }
    if (request.method === 'GET') {
      if (!/^\/(?:api|apis)\//.test(pathname)) return send(404, { kind: 'Status', code: 404, message: 'the server could not find the requested resource' })
      if (searchParams.has('watch')) return this.#watch(pathname, searchParams, response, send)
      return send(200, this.#list(pathname, searchParams))
    }
    const slash = pathname.lastIndexOf('/')
    const [collection, name] = [pathname.slice(0, slash), decodeURIComponent(pathname.slice(slash + 1))]
    if (request.method === 'DELETE') {
      if (!this.#collection(collection).has(name)) return send(404, { kind: 'Status', code: 404, message: `${name} not found` })
      await this.delete(collection, name)
      return send(200, { kind: 'Status', status: 'Success' })
    }
    if (request.method !== 'PATCH' || request.headers['content-type'] !== 'application/apply-patch+yaml' || !searchParams.has('fieldManager')) return send(415, { kind: 'Status', code: 415, message: 'only server-side apply here' })
    let text = ''
    request.setEncoding('utf8')
    for await (const chunk of request as AsyncIterable<string>) text += chunk
    return send(200, this.#store(collection, parseJson(text) as unknown as Object))
  }

  #list(collection: string, query: URLSearchParams): unknown {
    const items = [...this.#collection(collection).values()].filter((object) => selected(object, query.get('labelSelector')))
    const from = Number(query.get('continue') ?? 0)
    const limit = Number(query.get('limit') ?? items.length)
    const more = from + limit < items.length
    return { kind: 'List', metadata: { resourceVersion: String(this.#version), ...(more ? { continue: String(from + limit) } : {}) }, items: items.slice(from, from + limit) }
  }

  #watch(collection: string, query: URLSearchParams, response: ServerResponse, send: (status: number, body: unknown) => void): void {
    const from = Number(query.get('resourceVersion'))
    if (from < this.#compacted) return send(410, { kind: 'Status', code: 410, message: 'too old resource version' })
    response.writeHead(200, { 'content-type': 'application/json' })
    response.flushHeaders()
    const selector = query.get('labelSelector')
    for (const change of this.#history) if (change.version > from && change.collection === collection && selected(change.object, selector)) response.write(`${stringifyJson({ type: change.type, object: change.object })}\n`)
    response.write(`${stringifyJson({ type: 'BOOKMARK', object: { metadata: { resourceVersion: String(this.#version) } } })}\n`)
    const watch = { collection, selector, response }
    this.#watches.add(watch)
    response.once('close', () => this.#watches.delete(watch))
  }
}

const selected = (object: Object, selector: string | null): boolean =>
  selector === null || selector.split(',').every((term) => {
    const [name, value] = term.split('=') as [string, string]
    return object.metadata.labels?.[name] === value
  })

/** Writes a kubeconfig; gives its path. */
export async function writeKubeConfig(folder: string, server: string, more: { readonly ca?: string; readonly token?: string } = {}): Promise<string> {
  const path = join(folder, 'kubeconfig')
  await writeFile(path, JSON.stringify({
    'current-context': 'test', contexts: [{ name: 'test', context: { cluster: 'test', user: 'test', namespace: 'default' } }],
    clusters: [{ name: 'test', cluster: { server, ...(more.ca === undefined ? {} : { 'certificate-authority-data': Buffer.from(more.ca).toString('base64') }) } }],
    users: [{ name: 'test', user: more.token === undefined ? {} : { token: more.token } }],
  }))
  return path
}
