/** Routes of a service: which handler a call is for, and what is wrong with calls for none. */
import { parseJson } from '../dynamo/wire/json.ts'
import type { JsonObject } from '../ports.ts'
import { failure, type Answer, type ServiceCall } from './answer.ts'
import { BodyError, objectOf } from './body-fields.ts'

export type Reply = Answer | Promise<Answer>

/** A call for one route. `params`: the parts of its path that the pattern leaves open, decoded. */
export interface RoutedCall extends ServiceCall {
  readonly params: Readonly<Record<string, string>>
}

/** `pattern`: parts that begin with `:` are open. Handlers throw `BodyError` for bodies that do not fit. */
export interface Route {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  readonly pattern: string
  handle(call: RoutedCall): Reply
}

interface Compiled extends Route {
  readonly parts: readonly string[]
}

export class Routes {
  readonly #routes: readonly Compiled[]

  constructor(routes: readonly Route[]) {
    this.#routes = routes.map((route) => ({ ...route, parts: route.pattern.split('/') }))
  }

  /** Patterns of all routes; for labels. */
  get patterns(): readonly string[] {
    return [...new Set(this.#routes.map(({ pattern }) => pattern))]
  }

  /** The pattern that a path fits, whatever the method; null: none. */
  patternOf(path: string): string | null {
    const parts = path.split('/')
    return this.#routes.find((route) => paramsOf(route.parts, parts) !== null)?.pattern ?? null
  }

  /** Never throws for what a caller can send. */
  answer(call: ServiceCall): Reply {
    const parts = call.path.split('/')
    let isKnown = false
    for (const route of this.#routes) {
      const params = paramsOf(route.parts, parts)
      if (params === null) continue
      isKnown = true
      if (route.method === call.method || (call.method === 'HEAD' && route.method === 'GET')) return guarded(() => route.handle({ ...call, params }))
    }
    return isKnown ? failure(405, 'method not allowed') : failure(404, 'route not found')
  }
}

function guarded(handle: () => Reply): Reply {
  try {
    return handle()
  } catch (error) {
    if (error instanceof BodyError) return failure(error.status, error.message)
    throw error
  }
}

function paramsOf(pattern: readonly string[], parts: readonly string[]): Record<string, string> | null {
  if (pattern.length !== parts.length) return null
  const params: Record<string, string> = {}
  for (const [index, part] of pattern.entries()) {
    const given = parts[index]!
    if (!part.startsWith(':')) {
      if (part !== given) return null
      continue
    }
    try {
      params[part.slice(1)] = decodeURIComponent(given)
    } catch {
      return null
    }
    if (given === '') return null
  }
  return params
}

/** The JSON object of a call. Errors: `BodyError` 415, 400 or 422. */
export function jsonBody(call: ServiceCall): JsonObject {
  const type = call.headers['content-type']?.split(';')[0]?.trim().toLowerCase() ?? ''
  if (type !== 'application/json' && !/^application\/.+\+json$/.test(type)) {
    throw new BodyError(415, 'the body must be JSON: send it with the header Content-Type: application/json')
  }
  let value: unknown
  try {
    value = parseJson(call.body)
  } catch (error) {
    throw new BodyError(400, `the body is not valid JSON: ${error instanceof Error ? error.message : String(error)}`)
  }
  return objectOf(value, 'the body')
}
