/** The OpenAPI document of the routes that a server has. */
import type { Json, JsonObject } from '../ports.ts'
import type { ApiPaths } from './openai-server.ts'
import { schemas } from './openapi-schemas.ts'

export interface ApiDocumentInput {
  readonly routes: readonly { readonly path: string; readonly methods: readonly string[] }[]
  readonly paths: ApiPaths
  readonly version: string
  /** Requests under `/v1` must carry an API key. */
  readonly needsKey: boolean
}

interface Operation {
  readonly summary: string
  readonly tag: string
  readonly request?: string
  /** Answers in events when asked to. */
  readonly streams?: boolean
  readonly isOpen?: boolean
  readonly error?: string
  readonly answers?: Readonly<Record<string, string>>
}

const generation = { tag: 'Generation', streams: true } as const
const failures: Readonly<Record<string, string>> = {
  400: 'The request is malformed; the message names field, value and mend', 401: 'The API key is missing or not known', 404: 'No such model', 413: 'The body is too large',
  415: 'The body is not JSON', 429: 'A limit is reached', 500: 'The worker failed', 502: 'The worker answered with nothing that can be read', 503: 'No worker can serve now; try again', 504: 'The worker gave no answer in time', 529: 'All workers are busy; try again',
}

/** By the path as it is without options. */
function operations(paths: ApiPaths): Readonly<Record<string, Readonly<Record<string, Operation>>>> {
  return {
    [paths.chat]: { POST: { ...generation, summary: 'Chat completion', request: 'ChatRequest' } },
    [paths.completions]: { POST: { ...generation, summary: 'Completion of one prompt or many', request: 'CompletionRequest' } },
    [paths.responses]: { POST: { ...generation, summary: 'Response over chat; nothing is stored', request: 'ResponseRequest' } },
    [`${paths.responses}/input_tokens`]: { POST: { tag: 'Generation', summary: 'Tokens of a Response request', request: 'ResponseRequest' } },
    [paths.messages]: { POST: { ...generation, summary: 'Message of the Anthropic API over chat', request: 'MessageRequest', error: 'AnthropicError' } },
    [`${paths.messages}/count_tokens`]: { POST: { tag: 'Generation', summary: 'Tokens of a Message request', request: 'MessageRequest', error: 'AnthropicError' } },
    [paths.embeddings]: { POST: { tag: 'Embeddings', summary: 'Vectors of texts or token ids', request: 'EmbeddingRequest' } },
    [paths.models]: { GET: { tag: 'Models', summary: 'Models that are served' } },
    [`${paths.models}/*`]: { GET: { tag: 'Models', summary: 'One model, whose name may have slashes' } },
    [paths.health]: { GET: { tag: 'Operation', summary: 'Endpoints and instances', isOpen: true, answers: { 200: 'A model can be served', 503: 'None can' } } },
    [paths.live]: { GET: { tag: 'Operation', summary: 'The process is alive', isOpen: true, answers: { 200: 'It is' } } },
    [paths.ready]: { GET: { tag: 'Operation', summary: 'Requests can be served', isOpen: true, answers: { 200: 'They can', 503: 'They cannot' } } },
    [paths.metrics]: { GET: { tag: 'Operation', summary: 'Prometheus metrics', isOpen: true, answers: { 200: 'Text' } } },
    '/busy_threshold': {
      GET: { tag: 'Operation', summary: 'At what load workers count as busy', isOpen: true, answers: { 200: 'Thresholds of every model' } },
      POST: { tag: 'Operation', summary: 'Reads or sets the thresholds of a model; writes from loopback, or with the admin token', request: 'BusyThresholds', isOpen: true },
    },
    '/openapi.json': { GET: { tag: 'Operation', summary: 'This document', isOpen: true, answers: { 200: 'OpenAPI 3.1' } } },
    '/docs': { GET: { tag: 'Operation', summary: 'A page to read it', isOpen: true, answers: { 200: 'HTML' } } },
  }
}

/** Errors: a route that is not described. */
export function apiDocument(input: ApiDocumentInput): JsonObject {
  const known = operations(input.paths)
  const paths: Record<string, Json> = {}
  for (const { path, methods } of input.routes) {
    for (const method of methods) {
      const operation = known[path]?.[method]
      if (operation === undefined) throw new Error(`${method} ${path} is not described in the OpenAPI document`)
      const name = path.replace('/*', '/{model_id}')
      paths[name] = { ...(paths[name] as JsonObject | undefined), [method.toLowerCase()]: described(operation, name, method, input.needsKey) }
      if (path === `${input.paths.models}/*`) paths[`${name}/ready`] = { get: described(readyOperation, `${name}/ready`, method, input.needsKey) }
    }
  }
  return {
    openapi: '3.1.0', info: { title: 'Warmpath', description: 'OpenAI-compatible HTTP API over a Dynamo deployment.', version: input.version, license: { name: 'Apache-2.0', identifier: 'Apache-2.0' } },
    servers: [{ url: '/' }], paths,
    components: { schemas, ...(input.needsKey ? { securitySchemes: { bearer: { type: 'http', scheme: 'bearer' }, header: { type: 'apiKey', in: 'header', name: 'x-api-key' } } } : {}) },
  }
}

const readyOperation: Operation = { tag: 'Models', summary: 'Whether a model is ready, and what it lacks', answers: { 200: 'It is', 503: 'It is not; the body says what is missing' } }

function described(operation: Operation, path: string, method: string, needsKey: boolean): JsonObject {
  const { summary, tag, request, streams, isOpen, error = 'Error', answers } = operation
  const errors = request === undefined && answers !== undefined ? {} : failures
  const content = (name: string): JsonObject => ({ 'application/json': { schema: { $ref: `#/components/schemas/${name}` } } })
  const responses: Record<string, Json> = {}
  for (const [status, description] of Object.entries({ 200: 'The answer', ...errors, ...answers })) {
    if (status === '401' && (!needsKey || isOpen === true)) continue
    const isError = !status.startsWith('2') && answers?.[status] === undefined
    responses[status] = {
      description,
      ...(isError ? { content: content(error) } : status === '200' && streams === true ? { content: { 'application/json': {}, 'text/event-stream': {} } } : {}),
    }
  }
  return {
    summary, tags: [tag], operationId: `${method.toLowerCase()}${path.replace(/[^a-z0-9]+/gi, '_')}`,
    ...(path.includes('{model_id}') ? { parameters: [{ name: 'model_id', in: 'path', required: true, schema: { type: 'string' } }] } : {}),
    ...(request === undefined ? {} : { requestBody: { required: true, content: content(request) } }),
    responses, ...(needsKey && isOpen !== true ? { security: [{ bearer: [] }, { header: [] }] } : {}),
  }
}
