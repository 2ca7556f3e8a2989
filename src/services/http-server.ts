/** A service on a port: HTTP/1.1, JSON in and out, bounded bodies. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { readBody } from '../http/body-reader.ts'
import { stringifyJson } from '../dynamo/wire/json.ts'
import { FailureError } from '../model/failure.ts'
import type { Log } from '../ports.ts'
import { failure, type Answer, type ServiceCall } from './answer.ts'
import type { Routes } from './routes.ts'

/** Largest body, as in Dynamo 1.6.1. */
export const bodyBytesMax = 8 * 1024 * 1024
/** How long a body may take to arrive. */
const bodyDeadlineMs = 30_000
const connectionsMax = 16_384

export interface ServiceServerOptions {
  readonly host: string
  /** 0 takes a free one. */
  readonly port: number
  readonly log: Log
  readonly routes: Routes
  /** Told of every answer. */
  onAnswer?(pattern: string | null, method: string, status: number, seconds: number, call: ServiceCall): void
}

export interface ServiceServer {
  readonly port: number
  /** Open calls. */
  readonly activeCount: number
  /** Takes no more connections; resolves when open calls have ended, or after `deadlineMs`, which ends them. */
  close(deadlineMs: number): Promise<void>
}

/** Binds. Errors: an `Error` that names address and mend. */
export async function startServiceServer(options: ServiceServerOptions): Promise<ServiceServer> {
  let active = 0
  let isClosing = false
  const server = createServer({ requestTimeout: bodyDeadlineMs, headersTimeout: 10_000, keepAliveTimeout: 75_000 }, (request, response) => {
    active += 1
    if (isClosing) response.setHeader('connection', 'close')
    void serve(options, request, response).finally(() => { active -= 1 })
  })
  server.maxConnections = connectionsMax
  const { port } = await listen(server, options)
  return {
    port,
    get activeCount() { return active },
    close: (deadlineMs) => new Promise((resolve) => {
      isClosing = true
      const timer = setTimeout(() => server.closeAllConnections(), deadlineMs)
      server.close(() => {
        clearTimeout(timer)
        resolve()
      })
      server.closeIdleConnections()
    }),
  }
}

function listen(server: Server, { host, port }: ServiceServerOptions): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(new Error(error.code === 'EADDRINUSE' ? `port ${port} on ${host} is taken; choose another with --port` : `cannot listen on ${host}:${port}: ${error.message}; give an address of this machine with --host, and a port that may be used with --port`, { cause: error }))
    })
    server.listen(port, host, () => resolve(server.address() as AddressInfo))
  })
}

async function serve(options: ServiceServerOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const startedMs = performance.now()
  const gone = new AbortController()
  response.once('close', () => { if (!response.writableFinished) gone.abort() })
  const call = callOf(request, gone.signal)
  const answer = await answerTo(options, request, call)
  if (answer === null || response.destroyed) return
  const text = answer.text?.content ?? stringifyJson(answer.body)
  const bytes = Buffer.from(text)
  response.writeHead(answer.status, { 'content-type': answer.text?.type ?? 'application/json', 'content-length': bytes.length })
  response.end(call.method === 'HEAD' ? undefined : bytes)
  options.onAnswer?.(options.routes.patternOf(call.path), call.method, answer.status, (performance.now() - startedMs) / 1000, call)
}

/** Null: the caller has left. */
async function answerTo({ routes, log }: ServiceServerOptions, request: IncomingMessage, call: Omit<ServiceCall, 'body'>): Promise<Answer | null> {
  try {
    const body = request.method === 'GET' || request.method === 'HEAD' ? '' : await readBody(request, bodyBytesMax)
    return await routes.answer({ ...call, body })
  } catch (error) {
    if (call.signal?.aborted === true) return null
    if (error instanceof FailureError) {
      if (error.failure.class === 'Cancelled') return null
      return failure(error.failure.class === 'PayloadTooLarge' ? 413 : 400, error.failure.message)
    }
    log.error({ stage: 'http', reason: error instanceof Error ? error.stack ?? error.message : String(error) }, `${call.method} ${call.path} failed`)
    return failure(500, 'internal error; the log says more')
  }
}

function callOf(request: IncomingMessage, signal: AbortSignal): Omit<ServiceCall, 'body'> & { readonly body: '' } {
  const url = request.url ?? '/'
  const mark = url.indexOf('?')
  const headers = Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(', ') : value]))
  return {
    method: request.method ?? 'GET', path: mark < 0 ? url : url.slice(0, mark), query: new Map(new URLSearchParams(mark < 0 ? '' : url.slice(mark + 1))),
    headers, body: '', signal,
  }
}
