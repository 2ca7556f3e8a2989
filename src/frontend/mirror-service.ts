/** The router's own endpoints over the models of a frontend, for the HTTP mirror: the model by name, or the only one. */
import { FailureError } from '../model/failure.ts'
import type { Clock, Json, JsonObject } from '../ports.ts'
import type { HttpService } from '../http/service.ts'
import { callInProcess } from '../standalone/in-process-call.ts'
import { afterOverlap, bestWorker, chosen, explanationAnswer, overlapAnswer, queryOf } from '../standalone/query-endpoints.ts'
import type { FrontendModels } from './frontend-models.ts'
import type { ServedEntry } from './served-entry.ts'

/** Questions about caches are answered by the stage that computes prompts. */
export function mirrorService(models: FrontendModels, clock: Clock): HttpService {
  const entryOf = (request: JsonObject): ServedEntry => {
    const { model } = request
    const entry = models.entry(typeof model === 'string' ? model : null)
    if (entry !== null) return entry
    throw new FailureError({ class: 'Unavailable', reason: 'backend.unavailable', message: 'no model is ready; see /v1/models' })
  }
  const promptPool = (request: JsonObject): ServedEntry['pool'] => {
    const { pool, prefill } = entryOf(request)
    return prefill?.isUsable === true ? prefill : pool
  }
  const afterBest = async <Answer>(request: JsonObject, id: string, answer: (best: ReturnType<typeof bestWorker>) => Answer): Promise<Answer> => {
    const { routed } = promptPool(request)
    const query = queryOf(request as never)
    return afterOverlap(routed.remote, query, () => answer(bestWorker(routed.router, query, id, routed.setAsideIds())))
  }
  return {
    generate: (request, call) => callInProcess((incoming, response) => entryOf(request).generate.handle(incoming, response), request, call, clock, 'json') as AsyncIterable<Json>,
    bestWorkerId: (request, call) => afterBest(request, call.id, (best) => chosen(best).workerId),
    overlapScores: async (request) => {
      const query = queryOf(request as never)
      const { router, remote } = promptPool(request).routed
      if (router === null) throw new FailureError({ class: 'Unavailable', reason: 'backend.unavailable', message: 'no worker is known yet' })
      return afterOverlap(remote, query, () => overlapAnswer(router.overlap({ ...query.routing, tokens: query.tokens, ...(query.includeShared === undefined ? {} : { includeShared: query.includeShared }) })))
    },
    explain: (request, call) => afterBest(request, call.id, explanationAnswer),
    health: () => ({ ready: models.list().length > 0, detail: { models: models.list().map(({ name }) => name) } as { [key: string]: Json } }),
  }
}
