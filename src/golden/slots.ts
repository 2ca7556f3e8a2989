/** Slot cases: the recorded calls of a slot tracker, answered by the service's own routes. */
import { stringifyJson } from '../dynamo/wire/json.ts'
import { Routes } from '../services/routes.ts'
import { slotRoutes, SlotTracker } from '../services/slots/slot-tracker.ts'
import { difference } from './json-compare.ts'
import type { GoldenKind, GoldenOutcome } from './kind.ts'

interface Step {
  readonly method: string
  readonly path: string
  readonly request?: unknown
  readonly status: number
  readonly response: unknown
}

function runCase(steps: readonly Step[]): GoldenOutcome {
  const routes = new Routes(slotRoutes(new SlotTracker({ nowMs: () => 0, expirySeconds: 300, replication: null }), null))
  for (const [index, step] of steps.entries()) {
    const url = new URL(step.path, 'http://tracker')
    const answer = routes.answer({
      method: step.method, path: url.pathname, query: new Map(url.searchParams), headers: { 'content-type': 'application/json' }, body: stringifyJson(step.request ?? null),
    })
    if (answer instanceof Promise) return { kind: 'failed', message: `step ${index} ${step.path}: no answer at once` }
    if (answer.status !== step.status) {
      return { kind: 'failed', message: `step ${index} ${step.path}: status ${answer.status}, expected ${step.status} ${JSON.stringify(step.response)}` }
    }
    const differs = difference(step.response, answer.body, true)
    if (differs !== null) return { kind: 'failed', message: `step ${index} ${step.path}: ${differs}` }
  }
  return { kind: 'passed' }
}

export const golden: GoldenKind = {
  name: 'slots',
  *run(document) {
    for (const item of document['cases'] as readonly { readonly id: number; readonly steps: readonly Step[] }[]) {
      yield { id: `${item.id}`, outcome: runCase(item.steps) }
    }
  },
}
