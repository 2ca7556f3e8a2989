/** The selection service in process, without sockets: calls go to its routes, engine messages to the feeds of its workers. */
import type { EventSources } from '../services/event-sources.ts'
import { createFeedStats, EngineFeed } from '../services/engine-feed.ts'
import { Routes } from '../services/routes.ts'
import type { Answer } from '../services/answer.ts'
import { stringifyJson } from '../dynamo/wire/json.ts'
import { selectionRoutes } from '../services/selection/selection-routes.ts'
import { readSelectBody } from '../services/selection/select-body.ts'
import { routingRequestOf } from '../services/selection/selector.ts'
import { SelectionService } from '../services/selection/selection-service.ts'
import { ranksOf } from '../services/selection/worker-record.ts'
import type { Candidate, Decision, Refusal } from '../model/decision.ts'
import type { WorkerRank } from '../model/worker.ts'
import type { Clock, JsonObject, Random } from '../ports.ts'
import type { RouterSettings } from '../router/contract.ts'

export interface RankField {
  readonly worker_id: number | bigint
  readonly dp_rank: number | null
}

/** A decision with all candidates, or the refusal. */
export type Preview = { readonly decision: Decision; readonly candidates: readonly Candidate[] } | { readonly refused: Refusal }

export const stillClock: Clock = { nowMs: () => 0, epochMs: () => 0, setTimer: () => ({ cancel: () => undefined }) }

/** Repeatable chance. */
export function seededRandom(): Random {
  let state = 1
  const word = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state
  }
  return { float: () => word() / 2 ** 32, u64: () => [word(), word()] }
}

/** Feeds by rank; messages are handed to them instead of being received. */
export class HandFeeds implements EventSources {
  readonly #feeds = new Map<string, EngineFeed>()

  follow(...[record, blockSize, onEvent]: Parameters<EventSources['follow']>): void {
    for (const dpRank of ranksOf(record)) {
      const rank = { workerId: record.workerId, dpRank }
      if (!this.#feeds.has(rankKey(rank))) this.#feeds.set(rankKey(rank), new EngineFeed(rank, blockSize, createFeedStats(), onEvent))
    }
  }

  leave(workerId: bigint): void {
    for (const key of this.#feeds.keys()) if (key.startsWith(`${workerId}.`)) this.#feeds.delete(key)
  }

  feed(rank: RankField, sequence: number, payload: Uint8Array): void {
    this.#feeds.get(rankKey(rank))?.accept(BigInt(sequence), payload)
  }
}

export class ServiceInProcess {
  readonly service: SelectionService
  readonly feeds = new HandFeeds()
  readonly #routes: Routes

  constructor(settingsOf: (blockSize: number) => RouterSettings, useKvEvents: boolean, clock: Clock = stillClock) {
    let ids = 0
    this.service = new SelectionService({
      clock, random: seededRandom(), affinityTtlMs: null, replication: null, events: useKvEvents ? this.feeds : null,
      settingsFor: (_key, blockSize, isEagle) => ({ ...settingsOf(blockSize), isEagle, trackActiveBlocks: true }),
      pending: { ttlMs: 120_000, entriesMax: 4096, bytesMax: 256 * 1024 * 1024 }, busy: { decode: null, prefill: null },
      newId: () => `made-${ids += 1}`,
    })
    this.#routes = new Routes(selectionRoutes(this.service, null))
  }

  /** Answers at once, or with a promise where the request waits. */
  call(method: string, path: string, body: unknown, headers: Readonly<Record<string, string>> = {}): Answer | Promise<Answer> {
    const url = new URL(path, 'http://service')
    return this.#routes.answer({
      method, path: url.pathname, query: new Map(url.searchParams), headers: { 'content-type': 'application/json', ...headers }, body: stringifyJson(body ?? {}),
    })
  }

  /** What a selection would find, with the costs. */
  preview(body: JsonObject): Preview {
    const read = readSelectBody(body)
    const partition = this.service.membership.partition(read.key)
    if (partition === undefined) throw new Error('no worker is registered')
    const prompt = partition.hasher.forSelection(read.prompt, read.override?.assumeKvReuse)
    const answer = partition.router.select(routingRequestOf(read, prompt, 'preview', null, read.affinityTarget))
    return answer.kind === 'refused' ? { refused: answer } : { decision: answer, candidates: answer.explain().candidates }
  }
}

export const rankKey = (rank: WorkerRank | RankField): string =>
  'workerId' in rank ? `${rank.workerId}.${rank.dpRank}` : `${rank.worker_id}.${rank.dp_rank}`
